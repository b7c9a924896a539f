// Bytes on their way to host sockets that take no more now: queues made of pieces of one bounded pool.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backends/net/usernet/bytes.h"

namespace tessera::usernet {

class ChunkPool {
public:
    static constexpr std::size_t kChunk = 32 * kKiB;
    explicit ChunkPool(u32 most_chunks) : most_(most_chunks) {}

    static constexpr u32 kNone = ~u32{0};
    // kNone when the pool is used up. Memory is taken from the host when first needed, then kept.
    u32 take() {
        if (!free_.empty()) {
            const u32 chunk = free_.back();
            free_.pop_back();
            return chunk;
        }
        if (chunks_.size() == most_) return kNone;
        chunks_.push_back(std::make_unique<std::array<u8, kChunk>>());
        return static_cast<u32>(chunks_.size() - 1);
    }
    void give_back(u32 chunk) { free_.push_back(chunk); }
    Room at(u32 chunk) { return *chunks_[chunk]; }

private:
    u32 most_;
    std::vector<std::unique_ptr<std::array<u8, kChunk>>> chunks_;
    std::vector<u32> free_;
};

// First in, first out.
class ByteQueue {
public:
    [[nodiscard]] std::size_t size() const { return size_; }

    // Returns how many bytes there was memory for.
    std::size_t push(ChunkPool& pool, Bytes bytes) {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const std::size_t at = (begin_ + size_) % ChunkPool::kChunk;
            if (begin_ + size_ == chunks_.size() * ChunkPool::kChunk) {
                const u32 chunk = pool.take();
                if (chunk == ChunkPool::kNone) break;
                chunks_.push_back(chunk);
            }
            const std::size_t piece = std::min(ChunkPool::kChunk - at, bytes.size() - done);
            put_bytes(pool.at(chunks_.back()), at, bytes.subspan(done, piece));
            size_ += piece;
            done += piece;
        }
        return done;
    }
    // The first bytes, as many as lie together; empty if there are none.
    [[nodiscard]] Bytes front(ChunkPool& pool) const {
        if (size_ == 0) return {};
        return pool.at(chunks_.front()).subspan(begin_, std::min(ChunkPool::kChunk - begin_, size_));
    }
    // Not more than front() gave.
    void pop(ChunkPool& pool, std::size_t bytes) {
        begin_ += bytes;
        size_ -= bytes;
        if (size_ != 0 && begin_ < ChunkPool::kChunk) return;
        pool.give_back(chunks_.front());
        chunks_.erase(chunks_.begin());
        begin_ = 0;
    }
    void clear(ChunkPool& pool) {
        for (const u32 chunk : chunks_) pool.give_back(chunk);
        *this = {};
    }

private:
    std::vector<u32> chunks_;
    std::size_t begin_ = 0;  // in the first chunk
    std::size_t size_ = 0;
};

}  // namespace tessera::usernet
