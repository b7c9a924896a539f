// A file of the host whose contents are wanted as a whole, perhaps again later: kernels, initrds.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "vm/host_pages.h"

namespace tessera {

// Holds the file open and nothing of its contents. A file that is replaced or removed meanwhile, as packages
// are upgraded, stays what it was; one that is written to in place does not.
class HostFile {
public:
    // Errors name the file and say what is wrong with it (missing, not readable, a directory, empty).
    static Result<std::unique_ptr<HostFile>> open(const std::string& path);
    HostFile(const HostFile&) = delete;
    HostFile& operator=(const HostFile&) = delete;
    ~HostFile();

    // All of it, in memory of our own: that cannot change, shrink or raise SIGBUS under the reader.
    [[nodiscard]] Result<HostPages> read() const;
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    HostFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

    std::string path_;
    int fd_;
};

}  // namespace tessera
