# Settings that every target of the project shares.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
find_package(Threads REQUIRED)

# The sampler's arithmetic must not depend on contraction: CPU and CUDA give bitwise-equal columns
# (docs/architecture.md). The CPU kernels ask for fused multiply-adds by name.
add_library(higgs_rt_options INTERFACE)
target_compile_options(higgs_rt_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -ffp-contract=off>)
option(HIGGS_RT_WERROR "Treat warnings as errors" OFF)
if(HIGGS_RT_WERROR)
  target_compile_options(higgs_rt_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(HIGGS_RT_SANITIZE)
  # At -O3 GCC needs many minutes for the sanitized kernels.
  target_compile_options(higgs_rt_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HIGGS_RT_SANITIZE} -fno-omit-frame-pointer -O1 -g1>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>)
  target_link_options(higgs_rt_options INTERFACE -fsanitize=${HIGGS_RT_SANITIZE})
endif()

# higgs_rt_folder(<name> SOURCES ... LINK ...): one static library per folder of csrc.
function(higgs_rt_folder name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(higgs_rt_${name} STATIC ${ARG_SOURCES})
  target_include_directories(higgs_rt_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>
    $<INSTALL_INTERFACE:include>)
  target_link_libraries(higgs_rt_${name} PUBLIC ${ARG_LINK} PRIVATE $<BUILD_INTERFACE:higgs_rt_options>)
endfunction()
