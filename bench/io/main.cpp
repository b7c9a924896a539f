// iobench: what disks and networks, real or emulated, get done per second. One line for each row: name, work
// per second, unit, interrupts for each operation, operations, with tabs between. Time is the CLOCK_MONOTONIC
// of the machine it runs on.
//
//   iobench disk DEVICE PREFIX SECONDS ROW|all        writes over all of the device or file
//   iobench net ADDRESS PORT PREFIX SECONDS ROW|all   against a server
//   iobench serve ADDRESS                      the server: prints its port, ends with its standard input
//
// Exit code: 0 all right, 1 something failed or was wrong, 2 bad usage.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "io.h"

namespace tessera::iobench {

void fail(const std::string& what) {
    std::fprintf(stderr, "iobench: %s: %s\n", what.c_str(), std::strerror(errno));
    std::_Exit(1);
}

double now() {
    timespec time{};
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

namespace {

// Of all processors, of devices whose interrupts have such a name.
u64 interrupts() {
    std::ifstream file("/proc/interrupts");
    std::string line;
    u64 sum = 0;
    while (std::getline(file, line)) {
        if (line.find("virtio") == std::string::npos && line.find("ahci") == std::string::npos) continue;
        std::istringstream words(line.substr(line.find(':') + 1));
        for (u64 count = 0; words >> count;) sum += count;
    }
    return sum;
}

}  // namespace

Row::Row(std::string name, std::string unit)
    : name_(std::move(name)), unit_(std::move(unit)), interrupts_(interrupts()), begin_(now()) {}

void Row::print(double work, u64 operations) const {
    const double took = elapsed();
    const u64 count = interrupts() - interrupts_;
    std::printf("%s\t%.6g\t%s\t%.4g\t%llu\n", name_.c_str(), work / took, unit_.c_str(),
                operations == 0 ? 0.0 : static_cast<double>(count) / static_cast<double>(operations),
                static_cast<unsigned long long>(operations));
    (void)std::fflush(stdout);
}

}  // namespace tessera::iobench

int main(int argc, char** argv) {
    using namespace tessera::iobench;  // NOLINT(google-build-using-namespace)
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "disk" && argc == 6) {
        disk_rows(argv[2], {.prefix = argv[3], .seconds = std::strtod(argv[4], nullptr), .only = argv[5]});
    } else if (what == "net" && argc == 7) {
        net_rows(argv[2], static_cast<tessera::u16>(std::strtoul(argv[3], nullptr, 10)),
                 {.prefix = argv[4], .seconds = std::strtod(argv[5], nullptr), .only = argv[6]});
    } else if (what == "serve" && argc == 3) {
        serve(argv[2]);
    } else {
        std::fprintf(stderr,
                     "usage: iobench disk DEVICE PREFIX SECONDS ROW|all | net ADDRESS PORT PREFIX SECONDS "
                     "ROW|all | serve ADDRESS\n");
        return 2;
    }
    return 0;
}
