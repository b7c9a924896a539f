# The few commands the folders' CMakeLists.txt are written with.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths relative to the checkout, so that all checkouts share what was compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
                                  ${CCACHE_PROGRAM})
  set(CMAKE_C_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

# -g1: line tables only, which is what a crash report needs and a quarter of the size.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough -Werror
                    -fno-strict-aliasing -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
add_link_options(-fuse-ld=lld-19)
if(TESSERA_SANITIZE)
  # Without vptr: it wants type information, which the pure folders are built without.
  add_compile_options(-fsanitize=${TESSERA_SANITIZE} -fno-sanitize=vptr -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TESSERA_SANITIZE})
  if(TESSERA_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
endif()

# Adds every folder below DIR that holds a CMakeLists.txt.
function(tessera_add_folders dir)
  file(GLOB_RECURSE lists RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${dir}/*/CMakeLists.txt ${dir}/CMakeLists.txt)
  foreach(list IN LISTS lists)
    get_filename_component(folder ${list} DIRECTORY)
    add_subdirectory(${folder})
  endforeach()
endfunction()

# tessera_library(NAME [PURE] [SOURCES ...] [DEPS ...])
# PURE: no exceptions, no RTTI (the rule for base memory bus snapshot devices cpu boot).
# A library without sources is an interface library. Includes are written from src/.
function(tessera_library name)
  cmake_parse_arguments(A "PURE" "" "SOURCES;DEPS" ${ARGN})
  if(A_SOURCES)
    add_library(${name} STATIC ${A_SOURCES})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(${name} PUBLIC ${A_DEPS})
    if(A_PURE)
      target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions -fno-rtti>)
    endif()
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(${name} INTERFACE ${A_DEPS})
  endif()
endfunction()

# tessera_find_library(NAME): LIBRARY_<NAME> is the library's path. The static one is preferred: a shared one costs each
# start of the program time and memory.
macro(tessera_find_library name)
  find_library(LIBRARY_${name} NAMES lib${name}.a ${name} REQUIRED)
endmacro()

# tessera_test(NAME SOURCES ... [DEPS ...] [LABELS ...] [TIMEOUT seconds] [WHOLE])
# A GoogleTest program; each of its cases is a ctest case, or with WHOLE the program is one case.
function(tessera_test name)
  cmake_parse_arguments(A "WHOLE" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${A_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  if(A_WHOLE)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}")
  else()
    include(GoogleTest)
    # gtest_discover_tests takes lists apart and keeps the first label only; ctest -L looks for a part of a label.
    list(JOIN A_LABELS "+" labels)
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST
                         PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS ${labels})
  endif()
endfunction()

# tessera_fuzz(NAME SOURCES ... [DEPS ...]): a libFuzzer program, run by `tools/dev fuzz`.
function(tessera_fuzz name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${A_DEPS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_property(GLOBAL APPEND PROPERTY TESSERA_FUZZERS ${name})
endfunction()

# tessera_pvh_guest(NAME SOURCE): NAME.elf in the binary folder, a guest in assembly written with tests/pvh/pvh.inc;
# the target NAME_guest makes it. Does nothing where there is no nasm.
find_program(NASM_PROGRAM nasm)
function(tessera_pvh_guest name source)
  if(NOT NASM_PROGRAM)
    message(WARNING "nasm is missing, so the guest ${name} is left out (tools/dev setup installs it)")
    return()
  endif()
  set(image ${CMAKE_CURRENT_BINARY_DIR}/${name}.elf)
  set(frame ${CMAKE_SOURCE_DIR}/tests/pvh)
  add_custom_command(OUTPUT ${image}
    COMMAND ${NASM_PROGRAM} -f bin -Werror -I ${frame}/ -o ${image} ${CMAKE_CURRENT_SOURCE_DIR}/${source}
    DEPENDS ${source} ${frame}/elf.inc ${frame}/pvh.inc ${frame}/entropy.inc ${frame}/end.inc VERBATIM)
  add_custom_target(${name}_guest ALL DEPENDS ${image})
endfunction()
