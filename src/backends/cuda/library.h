// Functions of a vendor's library that is opened when it is first needed.
#pragma once

#include <dlfcn.h>

// A struct of the functions that a list of the library's header names (LIST(X): X(a) X(b) ...),
// with bool load(const Library&): false unless all are found.
#define NIBBLE_LIBRARY_MEMBER(name) decltype(&::name) name = nullptr;
#define NIBBLE_LIBRARY_FIND(name) &&library.find(#name, name)
#define NIBBLE_LIBRARY_FUNCTIONS(Functions, LIST)                                \
  struct Functions {                                                             \
    LIST(NIBBLE_LIBRARY_MEMBER)                                                  \
    bool load(const Library& library) { return true LIST(NIBBLE_LIBRARY_FIND); } \
  }

namespace nibble::cuda {

// Closes it when it goes.
class Library {
 public:
  explicit Library(const char* name) : handle_(::dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}
  ~Library() {
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // False when the machine has no such library, or it no such function.
  template <class Function>
  bool find(const char* name, Function& function) const {
    if (handle_ == nullptr) return false;
    function = reinterpret_cast<Function>(::dlsym(handle_, name));
    return function != nullptr;
  }

 private:
  void* handle_;
};

}  // namespace nibble::cuda
