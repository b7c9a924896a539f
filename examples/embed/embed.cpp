// Boots a guest inside this program and answers its serial port: a login without a human.
//
//     embed KERNEL INITRD
//
// Waits for the guest's shell prompt, asks for its kernel version, prints the answer, and powers the guest
// off.
#include <cstdio>
#include <string>

#include "machines/machine.h"

namespace {

// The far end of the guest's serial cable. put() runs while the port is locked, so answers are given from the
// event loop's thread.
class Conversation final : public tessera::CharBackend {
public:
    explicit Conversation(tessera::EventLoop& loop) : loop_(loop) {}

    bool put(tessera::u8 byte) override {
        heard_ += static_cast<char>(byte);
        if (heard_.ends_with("tessera# ")) reply(said_++ == 0 ? "echo kernel: $(uname -r)\n" : "poweroff\n");
        if (heard_.ends_with('\n')) {
            if (heard_.starts_with("kernel: ")) (void)std::fputs(heard_.c_str(), stdout);
            heard_.clear();
        }
        return true;
    }
    void receive_ready() override { reply(""); }
    void connect(tessera::CharPeer* peer) override { peer_ = peer; }

private:
    void reply(const std::string& text) {
        loop_.post([this, text] {
            waiting_ += text;
            const auto* bytes = reinterpret_cast<const tessera::u8*>(waiting_.data());
            waiting_.erase(0, peer_->receive({bytes, waiting_.size()}));
        });
    }

    tessera::EventLoop& loop_;
    tessera::CharPeer* peer_ = nullptr;
    std::string heard_;    // under the port's lock
    int said_ = 0;         // under the port's lock
    std::string waiting_;  // on the loop's thread
};

int complain(const std::string& message) {
    (void)std::fprintf(stderr, "embed: %s\n", message.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return complain("usage: embed KERNEL INITRD");
    auto vm = tessera::Vm::create(1, tessera::OnReset::End);
    if (!vm) return complain(vm.error().message);
    Conversation conversation((*vm)->loop());
    const auto built = tessera::build_machine(
        **vm,
        {.kernel = argv[1], .initrd = argv[2], .cmdline = "console=ttyS0 quiet", .serial = &conversation});
    if (!built) return complain(built.error().message);
    (*vm)->start();
    return (*vm)->wait().kind == tessera::Ending::Kind::PoweredOff ? 0
                                                                   : complain("the guest did not power off");
}
