#include "base/error.h"

namespace nibble {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return "usage";
    case ErrorKind::kCorrupt:
      return "corrupt";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kMemory:
      return "memory";
    case ErrorKind::kDisk:
      return "disk";
    case ErrorKind::kDevice:
      return "device";
    case ErrorKind::kQuality:
      return "quality";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "internal";
}

int exit_status(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kCorrupt:
      return 3;
    case ErrorKind::kUnsupported:
      return 4;
    case ErrorKind::kMemory:
    case ErrorKind::kDisk:
    case ErrorKind::kDevice:
      return 5;
    case ErrorKind::kQuality:
      return 6;
    case ErrorKind::kInternal:
      return 70;
  }
  return 70;
}

}  // namespace nibble
