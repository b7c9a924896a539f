// Boots a guest with a serial port on a PCI card besides COM1, and talks to it by both. With `port` the card
// is behind a root port.
//
//     pci_serial KERNEL INITRD "KERNEL OPTIONS" [port]
//
// The card's far end answers every line with "echo " and the line. The guest is told to send it a line and to
// say what came back; what it says goes to the standard output.
#include <array>
#include <cstdio>
#include <string>

#include "machines/machine.h"

namespace {

// One end of a cable: put() runs while the port is locked, so answers are given from the loop's thread.
class FarEnd : public tessera::CharBackend {
public:
    explicit FarEnd(tessera::EventLoop& loop) : loop_(loop) {}
    void receive_ready() override { reply(""); }
    void connect(tessera::CharPeer* peer) override { peer_ = peer; }

protected:
    void reply(const std::string& text) {
        loop_.post([this, text] {
            waiting_ += text;
            const auto* bytes = reinterpret_cast<const tessera::u8*>(waiting_.data());
            waiting_.erase(0, peer_->receive({bytes, waiting_.size()}));
        });
    }

private:
    tessera::EventLoop& loop_;
    tessera::CharPeer* peer_ = nullptr;
    std::string waiting_;  // on the loop's thread
};

constexpr std::array kCommands = {
    "T=$(dmesg | sed -n 's/^.*0000:0[01]:0[01].0: \\(ttyS[0-9]*\\) at I.O.*16550A.*/\\1/p'); echo port "
    "$T\n",
    "stty -F /dev/$T raw -echo; exec 3<>/dev/$T; echo hello >&3; read -t 20 ANSWER <&3; echo got "
    "$ANSWER\n",
    "i=0; while [ $i -lt 200 ]; do echo line $i >&3; read -t 20 A <&3; [ \"$A\" = \"echo line $i\" ] || "
    "echo bad $A; "
    "i=$((i + 1)); done; echo lines $i\n",
    "grep $T /proc/interrupts; dmesg | grep -c 'nobody cared'\n",
    "[ -d /sys/firmware/acpi ] && poweroff || reboot\n"};

class Operator final : public FarEnd {
public:
    using FarEnd::FarEnd;
    bool put(tessera::u8 byte) override {
        (void)std::fputc(byte, stdout);
        line_ += static_cast<char>(byte);
        if (line_.ends_with("tessera# ") && said_ < kCommands.size()) reply(kCommands[said_++]);
        if (byte == '\n') line_.clear();
        return true;
    }

private:
    std::string line_;
    std::size_t said_ = 0;
};

class Echo final : public FarEnd {
public:
    using FarEnd::FarEnd;
    bool put(tessera::u8 byte) override {
        line_ += static_cast<char>(byte);
        if (byte != '\n') return true;
        reply("echo " + line_);
        line_.clear();
        return true;
    }

private:
    std::string line_;
};

int complain(const std::string& message) {
    (void)std::fprintf(stderr, "pci_serial: %s\n", message.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4 && argc != 5) return complain("usage: pci_serial KERNEL INITRD OPTIONS");
    auto vm = tessera::Vm::create(1, tessera::OnReset::End);
    if (!vm) return complain(vm.error().message);
    Operator com1((*vm)->loop());
    Echo card((*vm)->loop());
    const auto place = argc == 5 ? tessera::PciPlace::RootPort : tessera::PciPlace::Bus0;
    const auto built = tessera::build_machine(**vm, {.kernel = argv[1],
                                                     .initrd = argv[2],
                                                     .cmdline = std::string("console=ttyS0 ") + argv[3],
                                                     .serial = &com1,
                                                     .pci_serials = {{.backend = &card, .place = place}}});
    if (!built) return complain(built.error().message);
    (*vm)->start();
    const auto ending = (*vm)->wait().kind;
    (void)std::fflush(stdout);
    // Without ACPI a guest cannot power off.
    const bool ended = ending == tessera::Ending::Kind::PoweredOff || ending == tessera::Ending::Kind::Reset;
    return ended ? 0 : complain("the guest did not end");
}
