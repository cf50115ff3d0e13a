# `cmake --install`: one library with everything in it, the public headers, and the CMake package
# higgs_rt with the target higgs_rt::higgs_rt. Component "runtime"; the Python module is "python".
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(higgs_rt csrc/api/library.cpp)
add_library(higgs_rt::higgs_rt ALIAS higgs_rt)
# The folders' static libraries become part of this one, so that a user links a single file.
set(HIGGS_RT_PARTS core batch io text kv ops model sampler engine executor api)
foreach(part ${HIGGS_RT_PARTS})
  target_sources(higgs_rt PRIVATE $<TARGET_OBJECTS:higgs_rt_${part}>)
endforeach()
target_include_directories(higgs_rt INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(higgs_rt INTERFACE cxx_std_20)
target_link_libraries(higgs_rt PUBLIC Threads::Threads PRIVATE $<BUILD_INTERFACE:higgs_rt_options>)
if(HIGGS_RT_CUDA)
  target_link_libraries(higgs_rt PUBLIC CUDA::cudart
    PRIVATE $<BUILD_INTERFACE:higgs_rt::cublasLt>)
endif()
if(HIGGS_RT_TENSORRT)
  target_link_libraries(higgs_rt PRIVATE $<BUILD_INTERFACE:TensorRT::TensorRT>)
endif()
set_target_properties(higgs_rt PROPERTIES VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

install(TARGETS higgs_rt EXPORT higgs_rt_targets COMPONENT runtime
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/include/ COMPONENT runtime
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/higgs_rt)
install(EXPORT higgs_rt_targets COMPONENT runtime NAMESPACE higgs_rt:: DESTINATION ${package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/higgs_rt-config.cmake.in
  ${PROJECT_BINARY_DIR}/higgs_rt-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/higgs_rt-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/higgs_rt-config.cmake
  ${PROJECT_BINARY_DIR}/higgs_rt-config-version.cmake
  COMPONENT runtime DESTINATION ${package_dir})
