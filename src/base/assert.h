// TESSERA_ASSERT: our own mistakes, checked in every build. Never for what a guest, a file or a user did.
#pragma once

namespace tessera {

[[noreturn]] void assertion_failed(const char* condition, const char* why, const char* file, int line);

}  // namespace tessera

// `why` says why no guest, file or user can make `cond` false.
#define TESSERA_ASSERT(cond, why)                                        \
    do {                                                                 \
        if (!(cond)) [[unlikely]]                                        \
            ::tessera::assertion_failed(#cond, why, __FILE__, __LINE__); \
    } while (false)
