// An ATA disk [ACS-3] over a BlockBackend: DMA, PIO and queued transfers, flush, TRIM, logs, SMART as far as
// tools ask for it. Leaves out security, streaming, host protected areas, sanitizing, microcode.
// GAP: READ VERIFY looks at the range only; SLEEP is STANDBY; self tests.
#pragma once

#include <array>
#include <string>

#include "devices/ata/drive.h"

namespace tessera::ata {

// [ACS-3 7.12.7.10]
inline constexpr std::size_t kSerialSize = 20;

class AtaDisk final : public Drive {
public:
    struct Config {
        std::string serial;       // up to kSerialSize bytes
        bool write_cache = true;  // the cache mode a driver finds, which it may change
    };
    AtaDisk(Config config, BlockBackend& backend);

    void power_on() override { state_ = initial_state(); }
    void reset(ResetKind kind) override;
    [[nodiscard]] Registers signature() const override;
    [[nodiscard]] bool is_queued(const Taskfile& taskfile) const override;
    [[nodiscard]] Step begin(Command& command) override;
    [[nodiscard]] Step go_on(Command& command, BlockStatus status) override;
    [[nodiscard]] BlockBackend* backend() const override { return &backend_; }
    void visit_state(StateVisitor& v, unsigned first) override { visit(v, first, state_); }
    [[nodiscard]] bool load(StateVisitor& v, unsigned first) override;
    void commit_load() override { state_ = loaded_; }

private:
    static constexpr u64 kBlock = 512;                // bytes of what is not the medium's: logs, ranges
    static constexpr u32 kBufferBlocks = 8;           // the most of those in a command
    static constexpr u8 kMostMultiple = 16;           // sectors
    static constexpr u8 kDefaultTransferMode = 0x46;  // Ultra DMA 6

    struct State {
        u8 multiple = kMostMultiple;
        u8 transfer_mode = kDefaultTransferMode;
        u8 write_cache = 1;
        u8 look_ahead = 1;
        u8 smart = 1;
        u8 reverting = 1;
        u8 power = static_cast<u8>(PowerMode::Active);
        // A queued command failed: nothing else is done until somebody reads why.
        u8 queue_failed = 0;
        u8 failed_tag = 0;  // kNotQueued: it was a command that is not for queues
        u8 failed_status = 0;
        u8 failed_error = 0;
        u16 failed_count = 0;
        u64 failed_lba = 0;
    };
    static constexpr u8 kNotQueued = 0x80;
    enum class Addresses : u8 { Bits28, Bits48 };
    struct Range {
        u64 lba;
        u64 sectors;
    };

    static void visit(StateVisitor& v, unsigned first, State& s);
    [[nodiscard]] State initial_state() const;

    // ata_disk.cpp
    [[nodiscard]] Step start(Command& command);
    [[nodiscard]] Step transfer(Command& command, BlockOperation operation, Protocol protocol,
                                const Range& range);
    [[nodiscard]] Step transfer28(Command& command, BlockOperation operation, Protocol protocol);
    [[nodiscard]] Step transfer48(Command& command, BlockOperation operation, Protocol protocol);
    [[nodiscard]] Step multiple(Command& command, BlockOperation operation, Addresses addresses);
    [[nodiscard]] Step queued(Command& command, BlockOperation operation);
    [[nodiscard]] Step verify(Command& command, const Range& range);
    [[nodiscard]] Step flush(Command& command);
    [[nodiscard]] Step trim(Command& command);
    [[nodiscard]] Step trim_next(Command& command);
    void note_failure(const Command& command);
    [[nodiscard]] Step failed(Command& command, BlockStatus status);
    [[nodiscard]] Step abort(Command& command);
    [[nodiscard]] Step not_found(Command& command, u64 lba);
    [[nodiscard]] Step end(Command& command);
    [[nodiscard]] Range range28(const Taskfile& taskfile) const;
    [[nodiscard]] static Range range48(const Taskfile& taskfile);
    [[nodiscard]] bool in_range(const Range& range) const;
    [[nodiscard]] bool can_trim() const;
    [[nodiscard]] u64 sectors() const { return info_.size / sector_size_; }

    // ata_disk_features.cpp
    [[nodiscard]] Step other(Command& command);
    [[nodiscard]] Step power(Command& command, PowerMode mode);
    [[nodiscard]] Step identify(Command& command);
    void fill_identify();
    [[nodiscard]] Step set_features(Command& command);
    [[nodiscard]] Step set_multiple(Command& command);
    [[nodiscard]] Step native_max(Command& command, Addresses addresses);
    [[nodiscard]] Step diagnose(Command& command);
    [[nodiscard]] Step smart(Command& command);
    [[nodiscard]] Step smart_data(Command& command);
    [[nodiscard]] Step read_log(Command& command, Protocol protocol);
    // The log's pages go to the buffer; false if there is no such log or page.
    [[nodiscard]] bool fill_log(u8 log, u32 page, u32 pages);
    [[nodiscard]] Step to_host(Command& command, Protocol protocol, u64 bytes);

    const Config config_;
    BlockBackend& backend_;
    const BlockInfo info_;
    const u32 sector_size_;
    State state_;
    State loaded_;
    std::array<u8, kBlock * kBufferBlocks> buffer_{};
};

}  // namespace tessera::ata
