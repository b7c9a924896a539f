// The lock a bus takes around a device access. The VM supplies mutexes; tests and single-threaded users
// NullLock.
#pragma once

namespace tessera {

class Lock {
public:
    Lock() = default;
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    virtual ~Lock() = default;
    virtual void lock() = 0;
    virtual void unlock() = 0;
};

class NullLock final : public Lock {
public:
    void lock() override {}
    void unlock() override {}
};

class LockGuard {
public:
    explicit LockGuard(Lock& lock) : lock_(lock) { lock_.lock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;
    ~LockGuard() { lock_.unlock(); }

private:
    Lock& lock_;
};

}  // namespace tessera
