# cuBLASLt, as the target higgs_rt::cublasLt: from the CUDA toolkit, or from the pip package
# nvidia-cublas of CMake's Python (headers and library without a toolkit's development files), or
# from -DHIGGS_RT_CUBLAS_ROOT=<folder with include/ and lib/>.
if(NOT TARGET higgs_rt::cublasLt)
  find_package(Python COMPONENTS Interpreter QUIET)
  if(Python_EXECUTABLE AND NOT HIGGS_RT_CUBLAS_ROOT)
    execute_process(OUTPUT_VARIABLE packages OUTPUT_STRIP_TRAILING_WHITESPACE
      COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    set(pip_root ${packages}/nvidia/cu${CUDAToolkit_VERSION_MAJOR})
  endif()
  set(roots ${HIGGS_RT_CUBLAS_ROOT} ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_TARGET_DIR} ${pip_root})
  find_path(CublasLt_INCLUDE_DIR cublasLt.h HINTS ${roots} PATH_SUFFIXES include)
  find_library(CublasLt_LIBRARY NAMES cublasLt libcublasLt.so.${CUDAToolkit_VERSION_MAJOR}
    HINTS ${roots} PATH_SUFFIXES lib lib64)
  include(FindPackageHandleStandardArgs)
  find_package_handle_standard_args(CublasLt
    REASON_FAILURE_MESSAGE "`pip install nvidia-cublas` for CMake's Python has it (-DPython_EXECUTABLE=...)"
    REQUIRED_VARS CublasLt_LIBRARY CublasLt_INCLUDE_DIR)
  if(CublasLt_FOUND)
    add_library(higgs_rt::cublasLt UNKNOWN IMPORTED)
    set_target_properties(higgs_rt::cublasLt PROPERTIES
      IMPORTED_LOCATION ${CublasLt_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CublasLt_INCLUDE_DIR})
  endif()
endif()
