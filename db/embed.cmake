# Text files as C arrays, with nothing but CMake.
#   hf_embed(TARGET SYMBOL FOLDER FILE...)   adds a generated source to TARGET that defines `const hf_embedded SYMBOL[]`
#                                            (db/embed.h); names are the paths of the files below FOLDER.
# The same file is the script that writes the source at build time, so that an edited .sql or .json is picked up by the next
# build.
if(CMAKE_SCRIPT_MODE_FILE)
  file(STRINGS ${LIST} files)
  list(SORT files)
  set(arrays "")
  set(table "")
  set(i 0)
  foreach(f ${files})
    file(READ ${FOLDER}/${f} hex HEX)
    string(LENGTH "${hex}" digits)
    math(EXPR bytes "${digits} / 2")
    string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
    string(APPEND arrays "static const unsigned char text_${i}[] = {\n${hex}0};\n")
    string(APPEND table "  {\"${f}\", (const char *)text_${i}, ${bytes}},\n")
    math(EXPR i "${i} + 1")
  endforeach()
  file(WRITE ${OUT}.tmp "#include \"db/embed.h\"\n${arrays}const hf_embedded ${SYMBOL}[] = {\n${table}  {NULL, NULL, 0},\n};\n")
  file(COPY_FILE ${OUT}.tmp ${OUT} ONLY_IF_DIFFERENT)
  file(REMOVE ${OUT}.tmp)
  file(TOUCH_NOCREATE ${OUT})
  return()
endif()

function(hf_embed target symbol folder)
  set(dir ${CMAKE_BINARY_DIR}/generated/db)
  file(MAKE_DIRECTORY ${dir})
  set(names "")
  foreach(f ${ARGN})
    file(RELATIVE_PATH name ${folder} ${f})
    list(APPEND names ${name})
  endforeach()
  string(REPLACE ";" "\n" names "${names}")
  file(CONFIGURE OUTPUT ${dir}/${symbol}.list CONTENT "${names}\n" @ONLY)
  add_custom_command(OUTPUT ${dir}/${symbol}.c
    COMMAND ${CMAKE_COMMAND} -DLIST=${dir}/${symbol}.list -DFOLDER=${folder} -DSYMBOL=${symbol} -DOUT=${dir}/${symbol}.c
            -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    DEPENDS ${ARGN} ${dir}/${symbol}.list ${CMAKE_CURRENT_FUNCTION_LIST_FILE} VERBATIM)
  target_sources(${target} PRIVATE ${dir}/${symbol}.c)
endfunction()
