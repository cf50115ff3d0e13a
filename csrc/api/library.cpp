// The installed library consists of the objects of all folders; a CMake library needs a source of
// its own to know its language.
