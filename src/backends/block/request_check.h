// What every disk checks of a request before it looks at it: the controller should have, and is not trusted
// to.
#pragma once

#include "backends/block/block_backend.h"

namespace tessera::block {

[[nodiscard]] inline bool is_in_range(const BlockInfo& info, const BlockRequest& request) {
    if (request.operation == BlockOperation::Flush) return true;
    if (request.operation != BlockOperation::Read && info.read_only) return false;
    if (request.offset % kSectorSize != 0 || request.length % kSectorSize != 0) return false;
    if (request.offset > info.size || request.length > info.size - request.offset) return false;
    if (request.operation != BlockOperation::Read && request.operation != BlockOperation::Write) return true;
    u64 length = 0;
    for (const iovec& piece : request.buffers) length += piece.iov_len;
    return length == request.length;
}

}  // namespace tessera::block
