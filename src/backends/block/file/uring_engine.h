// Reads, writes and flushes of one file by io_uring: many in flight, one thread that takes what completed.
#pragma once

#include <deque>
#include <liburing.h>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "backends/block/block_backend.h"

namespace tessera::block {

class UringEngine {
public:
    class Owner {
    public:
        Owner() = default;
        Owner(const Owner&) = delete;
        Owner& operator=(const Owner&) = delete;
        // The request has ended with an errno, 0 for success. On the engine's thread, or inside submit.
        virtual void completed(BlockRequest& request, int error) = 0;
        // A read found no more bytes at `offset`: whether that is the end of the file.
        [[nodiscard]] virtual bool is_end(u64 offset) const = 0;

    protected:
        ~Owner() = default;
    };

    // Nothing if the host does not allow io_uring, as many containers do not.
    static std::unique_ptr<UringEngine> create(Owner& owner, int fd);
    UringEngine(const UringEngine&) = delete;
    UringEngine& operator=(const UringEngine&) = delete;
    ~UringEngine();  // nothing may be in flight

    void submit(std::span<BlockRequest* const> requests);

private:
    static constexpr unsigned kSlots = 256;  // in flight at the host at a time; more wait here
    struct Slot {
        BlockRequest* request = nullptr;
        u64 done = 0;  // bytes
        std::vector<iovec> rest;
    };

    UringEngine(Owner& owner, int fd) : owner_(owner), fd_(fd) {}
    void push();                   // with mutex_
    void start_waiting();          // with mutex_
    void prepare(unsigned index);  // with mutex_
    void reap();
    // What to do with a result; true if the request has ended, with *error.
    bool settle(Slot& slot, int result, int& error) const;

    Owner& owner_;
    const int fd_;
    io_uring ring_{};
    std::thread thread_;
    std::mutex mutex_;  // the submission side, and what follows
    std::vector<Slot> slots_;
    std::vector<unsigned> free_;
    std::deque<BlockRequest*> waiting_;
};

}  // namespace tessera::block
