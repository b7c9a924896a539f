// Stream sockets with a name in the file system: programs of the host reach a guest by them.
#pragma once

#include <string>
#include <sys/types.h>
#include <utility>

#include "base/file.h"
#include "base/result.h"

namespace tessera {

// Waits for connections at a path. What is made is this user's alone; it is removed in the end.
class UnixListener {
public:
    UnixListener() = default;
    // A socket that is there but that nobody listens at was left over, and is replaced. Anything else that is
    // there is an error. `option` is what error messages begin with.
    static Result<UnixListener> open(const std::string& option, const std::string& path);
    UnixListener(UnixListener&& other) noexcept { *this = std::move(other); }
    UnixListener& operator=(UnixListener&& other) noexcept;
    UnixListener(const UnixListener&) = delete;
    UnixListener& operator=(const UnixListener&) = delete;
    ~UnixListener() { remove(); }

    [[nodiscard]] int get() const { return socket_.get(); }
    // A connection that waits, not blocking; a closed File if none does.
    [[nodiscard]] File accept() const;

private:
    void remove();

    File socket_;
    std::string path_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

// Connects to whoever listens at `path`, not blocking; a closed File if nobody does.
[[nodiscard]] File connect_unix(const std::string& path);

}  // namespace tessera
