// A CD drive with the packet command set: MmcDrive's commands over ATA, data by PIO and DMA, the
// disc a read-only BlockBackend of 2048-byte blocks.
#pragma once

#include <array>
#include <string>

#include "devices/ata/drive.h"
#include "devices/ata/mmc_drive.h"

namespace tessera::ata {

class AtapiCdrom final : public Drive {
public:
    // Without a disc the tray is empty.
    AtapiCdrom(const std::string& serial, BlockBackend* disc);

    void power_on() override;
    void reset(ResetKind kind) override;
    [[nodiscard]] Registers signature() const override;
    [[nodiscard]] bool is_queued(const Taskfile& /*taskfile*/) const override { return false; }
    [[nodiscard]] Step begin(Command& command) override;
    [[nodiscard]] Step go_on(Command& command, BlockStatus status) override;
    [[nodiscard]] BlockBackend* backend() const override { return disc_; }
    void visit_state(StateVisitor& v, unsigned first) override;
    [[nodiscard]] bool load(StateVisitor& v, unsigned first) override;
    void commit_load() override;

private:
    static constexpr u8 kDefaultTransferMode = 0x46;  // Ultra DMA 6

    struct State {
        u8 transfer_mode = kDefaultTransferMode;
        u8 power = static_cast<u8>(PowerMode::Active);
    };
    static void visit(StateVisitor& v, unsigned first, State& s);

    [[nodiscard]] Step packet(Command& command);
    [[nodiscard]] Step finish(Command& command, SenseKey key) const;
    [[nodiscard]] Step identify(Command& command);
    [[nodiscard]] Step set_features(Command& command);
    [[nodiscard]] static Step abort(Command& command);
    [[nodiscard]] static Step end(Command& command);

    const std::string serial_;
    BlockBackend* const disc_;
    MmcDrive mmc_;
    State state_;
    State loaded_;
    MmcDrive::State loaded_mmc_;
    std::array<u8, 512> buffer_{};
};

}  // namespace tessera::ata
