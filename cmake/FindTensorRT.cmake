# Finds TensorRT or TensorRT for RTX: headers and runtime library (the builder is Python's).
#
# Input:  TENSORRT_ROOT (variable or environment): a directory with include/ and lib/, as the
#         vendor's archives have them; or TensorRT_INCLUDE_DIR and TensorRT_LIBRARY themselves.
#         The pip packages carry libraries without headers and so are not enough.
# Output: TensorRT_FOUND, TensorRT_VERSION, TensorRT_FLAVOR (tensorrt or tensorrt_rtx), and the
#         target TensorRT::TensorRT. What the headers say decides which library is looked for.
# The least versions with what the engine calls (aliased outputs; on RTX isStreamCapturable):
# TensorRT 10.15, TensorRT for RTX 1.5.
include(FindPackageHandleStandardArgs)

set(_roots ${TENSORRT_ROOT} $ENV{TENSORRT_ROOT})
set(_include_suffixes include include/${CMAKE_LIBRARY_ARCHITECTURE})
set(_library_suffixes lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE} bin)
find_path(TensorRT_INCLUDE_DIR NvInferVersion.h HINTS ${_roots} PATH_SUFFIXES ${_include_suffixes})
mark_as_advanced(TensorRT_INCLUDE_DIR)

# 10.16 and later write `TRT_MAJOR_ENTERPRISE 10` and refer to it; RTX has TRT_MAJOR_RTX.
function(_tensorrt_version_part part text out)
  foreach(name TRT_${part}_ENTERPRISE TRT_${part}_RTX NV_TENSORRT_${part})
    if(text MATCHES "#define ${name} +([0-9]+)")
      set(${out} ${CMAKE_MATCH_1} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${out} 0 PARENT_SCOPE)
endfunction()

set(TensorRT_FLAVOR tensorrt)
set(_library_names nvinfer)
if(TensorRT_INCLUDE_DIR)
  file(READ ${TensorRT_INCLUDE_DIR}/NvInferVersion.h _text)
  foreach(part MAJOR MINOR PATCH)
    _tensorrt_version_part(${part} "${_text}" _${part})
  endforeach()
  set(TensorRT_VERSION ${_MAJOR}.${_MINOR}.${_PATCH})
  set(_least 10.15)
  set(_library_names nvinfer libnvinfer.so.${_MAJOR})
  if(_text MATCHES "#define TRT_MAJOR_RTX")
    set(TensorRT_FLAVOR tensorrt_rtx)
    set(_least 1.5)
    set(_library_names tensorrt_rtx libtensorrt_rtx.so.${_MAJOR} tensorrt_rtx_${_MAJOR}_${_MINOR})
  endif()
  if(TensorRT_VERSION VERSION_LESS _least)
    set(_why "expected ${TensorRT_FLAVOR} ${_least} or newer, got ${TensorRT_VERSION} in "
      "${TensorRT_INCLUDE_DIR}")
    list(JOIN _why "" _why)
    set(TensorRT_INCLUDE_DIR_TOO_OLD TRUE)
  endif()
endif()
find_library(TensorRT_LIBRARY NAMES ${_library_names} HINTS ${_roots}
  PATH_SUFFIXES ${_library_suffixes})
mark_as_advanced(TensorRT_LIBRARY)

if(TensorRT_INCLUDE_DIR_TOO_OLD)
  set(TensorRT_FOUND FALSE)
  if(TensorRT_FIND_REQUIRED)
    message(FATAL_ERROR "TensorRT: ${_why}")
  endif()
  return()
endif()
find_package_handle_standard_args(TensorRT
  REQUIRED_VARS TensorRT_LIBRARY TensorRT_INCLUDE_DIR
  VERSION_VAR TensorRT_VERSION
  REASON_FAILURE_MESSAGE
  "set TENSORRT_ROOT to the unpacked archive of TensorRT (10.15 or newer) or TensorRT for RTX")

if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT UNKNOWN IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES
    IMPORTED_LOCATION ${TensorRT_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${TensorRT_INCLUDE_DIR})
endif()
