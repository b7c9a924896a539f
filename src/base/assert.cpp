#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace tessera {

void assertion_failed(const char* condition, const char* why, const char* file, int line) {
    (void)std::fprintf(stderr, "tessera: internal error at %s:%d: %s (%s). Please report this.\n", file, line,
                       condition, why);
    std::abort();
}

}  // namespace tessera
