// A CD and DVD reader's SCSI commands [MMC-6], without the bus it is on: a command descriptor block goes in,
// data, a range of blocks to read, or sense comes out. The disc is one track of data.
// GAP: MODE SELECT, READ SUB-CHANNEL, READ CD of anything but user data, DVD structures, GET PERFORMANCE,
// discs that change while the machine runs.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/types.h"
#include "devices/ata/scsi_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::ata {

enum class Disc : u8 { None, Inserted };

class MmcDrive {
public:
    static constexpr std::size_t kBlockSize = 12;  // bytes of a command

    struct Config {
        std::string serial;
        Disc disc = Disc::None;
        u64 blocks = 0;  // of 2048 bytes
    };
    // Of a READ; a controller's transfer is not larger.
    static constexpr u64 kMostBlocks = 65536;

    explicit MmcDrive(Config config) : config_(std::move(config)) {}

    // What a command asks for. Sense is kept for REQUEST SENSE, and is none when all is well.
    struct Answer {
        SenseKey key = SenseKey::None;
        std::span<u8> data;  // ours, until the next command
        u64 first_block = 0;
        u64 blocks = 0;  // to be read; 0: none
    };
    [[nodiscard]] Answer execute(std::span<const u8, kBlockSize> cdb);
    // The blocks could not be read.
    [[nodiscard]] Answer read_failed() { return refuse(kReadError); }

    void power_on() { state_ = {}; }
    // The next command is told of it; the tray stays as it is.
    void reset();

    struct State {
        u8 key = 0;  // of the last command
        u8 code = 0;
        u8 qualifier = 0;
        u8 reset_pending = 1;  // unit attentions
        u8 change_pending = 0;
        u8 tray_open = 0;
        u8 locked = 0;
        u8 event = 0;  // MediaEvent
    };
    static constexpr unsigned kFields = 8;
    static void visit(StateVisitor& v, unsigned first, State& s);
    [[nodiscard]] const State& state() const { return state_; }
    [[nodiscard]] static bool valid(const State& s);
    void restore(const State& s) { state_ = s; }

private:
    using Cdb = std::span<const u8, kBlockSize>;
    class Reply;

    [[nodiscard]] Answer run(Cdb cdb);
    [[nodiscard]] Answer refuse(const Sense& sense);
    [[nodiscard]] Answer good();
    [[nodiscard]] Answer give(const Reply& reply, u64 allocation);
    [[nodiscard]] bool has_disc() const { return config_.disc == Disc::Inserted && state_.tray_open == 0; }
    [[nodiscard]] Sense no_disc() const { return state_.tray_open != 0 ? kNoMediumOpen : kNoMediumClosed; }
    [[nodiscard]] bool is_dvd() const;

    [[nodiscard]] Answer read(u64 first, u64 count);
    [[nodiscard]] Answer read_cd(Cdb cdb);
    [[nodiscard]] Answer request_sense(Cdb cdb);
    [[nodiscard]] Answer inquiry(Cdb cdb);
    [[nodiscard]] Answer vital_data(Cdb cdb);
    [[nodiscard]] Answer start_stop(Cdb cdb);
    [[nodiscard]] Answer read_capacity();
    [[nodiscard]] Answer format_capacities(Cdb cdb);
    [[nodiscard]] Answer report_luns(Cdb cdb);
    [[nodiscard]] Answer get_event(Cdb cdb);
    [[nodiscard]] Answer mechanism_status(Cdb cdb);
    // mmc_pages.cpp
    [[nodiscard]] Answer mode_sense(Cdb cdb, bool long_form);
    [[nodiscard]] Answer read_toc(Cdb cdb);
    [[nodiscard]] Answer get_configuration(Cdb cdb);
    [[nodiscard]] Answer disc_information(Cdb cdb);
    [[nodiscard]] Answer track_information(Cdb cdb);

    const Config config_;
    State state_;
    std::array<u8, 512> buffer_{};
};

// Fills the buffer from its beginning; numbers are big-endian.
class MmcDrive::Reply {
public:
    explicit Reply(std::span<u8> to) : to_(to) {}
    void put8(u64 value);
    void put16(u64 value);
    void put24(u64 value);
    void put32(u64 value);
    void zeros(std::size_t count);
    // Blanks behind it.
    void text(std::string_view text, std::size_t width);
    // Over what is there already.
    void set8(std::size_t at, u64 value) { to_[at] = static_cast<u8>(value); }
    void set16(std::size_t at, u64 value);
    void set32(std::size_t at, u64 value);
    [[nodiscard]] std::size_t size() const { return size_; }

private:
    std::span<u8> to_;
    std::size_t size_ = 0;
};

}  // namespace tessera::ata
