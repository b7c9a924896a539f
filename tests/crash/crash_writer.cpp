// A program of the guest: writes files in four processes, and says on its standard output what is durable,
// once it is.
//
//     crash_writer FOLDER ROUNDS
//
// Every sector of every file is a line of text that tells which it is. What is said, with the worker's number
// W:
//     new W N SECTORS     the file W/new-N is there, with so many sectors
//     going W N           that file may go from now on
//     gone W N            it has gone
//     append W SECTORS    the file W/append has at least so many sectors
//     current W N         the file W/current is there, whole, in version N or later
//     place W SLOT N      of the file W/place that slot has version N or later
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr int kWorkers = 4;
constexpr int kSector = 512;
constexpr int kSlots = 8;
constexpr int kSlotSectors = 8;  // a block: what O_DIRECT takes
constexpr int kKeep = 12;        // files of kind "new"
alignas(4096) char buffer[64 * kSector];

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::_Exit(1);
}

void say(const std::string& line) {
    if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
        fail("write to the console");
}

void fill(const std::string& file, int version, int first, int count) {
    std::memset(buffer, '.', sizeof(buffer));
    for (int i = 0; i < count; ++i) {
        char text[kSector];
        const int length = std::snprintf(text, sizeof(text), "%s %d %d\n", file.c_str(), version, first + i);
        std::memcpy(&buffer[static_cast<std::size_t>(i) * kSector], text, static_cast<std::size_t>(length));
    }
}

void put(int file, int first, int count) {
    if (pwrite(file, buffer, static_cast<std::size_t>(count) * kSector, off_t{first} * kSector) !=
        ssize_t{count} * kSector)
        fail("pwrite");
}

int open_file(const std::string& path, int flags) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | flags, 0644);
    if (file < 0) fail(path.c_str());
    return file;
}

void sync_folder(const std::string& path) {
    const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY);
    if (folder < 0 || fsync(folder) != 0 || close(folder) != 0) fail("fsync of a folder");
}

class Worker {
public:
    Worker(int number, std::string folder)
        : w_(std::to_string(number)), folder_(std::move(folder) + "/" + w_ + "/") {
        if (mkdir(folder_.c_str(), 0755) != 0) fail("mkdir");
        append_ = open_file(folder_ + "append", O_APPEND);
        place_ = open_file(folder_ + "place", number % 2 == 0 ? O_DIRECT : 0);
        for (int slot = 0; slot < kSlots; ++slot) {
            fill("place", 0, slot * kSlotSectors, kSlotSectors);
            put(place_, slot * kSlotSectors, kSlotSectors);
        }
        if (fsync(place_) != 0) fail("fsync");
        sync_folder(folder_);
        for (int slot = 0; slot < kSlots; ++slot) say("place " + w_ + " " + std::to_string(slot) + " 0\n");
    }

    void round(int n) {
        make_new(n);
        append(n);
        replace(n);
        overwrite(n);
        if (n > kKeep) remove(n - kKeep);
    }

private:
    void make_new(int n) {
        const int sectors = 1 + (n * 7 + w_[0] * 3) % 40;
        const std::string name = "new-" + std::to_string(n);
        const int file = open_file(folder_ + name, 0);
        fill(name, 0, 0, sectors);
        put(file, 0, sectors);
        if (fsync(file) != 0 || close(file) != 0) fail("fsync");
        say("new " + w_ + " " + std::to_string(n) + " " + std::to_string(sectors) + "\n");
    }
    void append(int n) {
        const int sectors = 1 + n % 5;
        fill("append", 0, appended_, sectors);
        if (write(append_, buffer, static_cast<std::size_t>(sectors) * kSector) != ssize_t{sectors} * kSector)
            fail("write");
        if (fdatasync(append_) != 0) fail("fdatasync");
        appended_ += sectors;
        say("append " + w_ + " " + std::to_string(appended_) + "\n");
    }
    void replace(int n) {
        const int sectors = 8 + n % 9;
        const int file = open_file(folder_ + "next", O_TRUNC);
        fill("current", n, 0, sectors);
        put(file, 0, sectors);
        if (fsync(file) != 0 || close(file) != 0) fail("fsync");
        if (rename((folder_ + "next").c_str(), (folder_ + "current").c_str()) != 0) fail("rename");
        sync_folder(folder_);
        say("current " + w_ + " " + std::to_string(n) + "\n");
    }
    void overwrite(int n) {
        const int slot = n * 5 % kSlots;
        fill("place", n, slot * kSlotSectors, kSlotSectors);
        put(place_, slot * kSlotSectors, kSlotSectors);
        if (fdatasync(place_) != 0) fail("fdatasync");
        say("place " + w_ + " " + std::to_string(slot) + " " + std::to_string(n) + "\n");
    }
    void remove(int n) {
        say("going " + w_ + " " + std::to_string(n) + "\n");
        if (unlink((folder_ + "new-" + std::to_string(n)).c_str()) != 0) fail("unlink");
        sync_folder(folder_);
        say("gone " + w_ + " " + std::to_string(n) + "\n");
    }

    const std::string w_;
    const std::string folder_;
    int append_ = -1;
    int place_ = -1;
    int appended_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: crash_writer FOLDER ROUNDS");
    const int rounds = static_cast<int>(std::strtol(argv[2], nullptr, 10));
    for (int number = 0; number < kWorkers; ++number)
        if (fork() == 0) {
            Worker worker(number, argv[1]);
            for (int n = 1; n <= rounds; ++n) worker.round(n);
            return 0;
        }
    int worst = 0;
    for (int status = 0; wait(&status) > 0;) worst = std::max(worst, status);
    return worst == 0 ? 0 : 1;
}
