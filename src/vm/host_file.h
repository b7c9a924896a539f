// A file of the host, read once and kept: kernels, initrds.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace tessera {

class HostFile {
public:
    // Errors name the file and say what is wrong with it (missing, not readable, a directory, empty).
    static Result<std::unique_ptr<HostFile>> open(const std::string& path);
    HostFile(const HostFile&) = delete;
    HostFile& operator=(const HostFile&) = delete;
    ~HostFile();

    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    HostFile(std::string path, std::span<std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

    std::string path_;
    std::span<std::byte> bytes_;
};

}  // namespace tessera
