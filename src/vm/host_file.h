// A file of the host, read once and kept: kernels, initrds.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "vm/host_pages.h"

namespace tessera {

class HostFile {
public:
    // Errors name the file and say what is wrong with it (missing, not readable, a directory, empty).
    static Result<std::unique_ptr<HostFile>> open(const std::string& path);
    HostFile(const HostFile&) = delete;
    HostFile& operator=(const HostFile&) = delete;
    ~HostFile() = default;

    [[nodiscard]] std::span<const std::byte> bytes() const { return pages_.bytes(); }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    HostFile(std::string path, HostPages pages) : path_(std::move(path)), pages_(std::move(pages)) {}

    std::string path_;
    HostPages pages_;
};

}  // namespace tessera
