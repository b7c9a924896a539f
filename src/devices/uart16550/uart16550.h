// 16550A UART [PC16550D]: registers, FIFOs, interrupts, loopback. Bytes leave through `Wire` as soon as it
// takes them; baud rates do not slow data down, they only set the character timeout. Leaves out the DMA pins
// and parity on the wire.
#pragma once

#include <array>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/uart16550/uart16550_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::uart16550 {

inline constexpr u64 kRegisterCount = 8;
inline constexpr u8 kFifoDepth = 16;

// The far end of the cable, as the chip drives it. Called with the device's lock held, so an implementation
// must not wait, and must not call back into the chip from inside.
class Wire {
public:
    Wire() = default;
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;
    virtual ~Wire() = default;

    // False: no room now. The chip keeps the byte, tells the guest so, and offers it again in
    // transmit_ready().
    virtual bool put(u8 byte) = 0;
    virtual void set_break(bool /*on*/) {}
    virtual void set_modem_control(bool /*dtr*/, bool /*rts*/) {}
};

// What the chip reads from the far end; true is the active state.
struct ModemInputs {
    bool cts = true;
    bool dsr = true;
    bool ri = false;
    bool dcd = true;
};

// Whether the host side leaves bytes waiting while the guest has RTS off.
enum class FlowControl : u8 { None, RtsCts };

// Up to 16 characters, each with the line status bits it arrived with.
class Fifo {
public:
    [[nodiscard]] u8 size() const { return count_; }
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] u8 front_errors() const { return empty() ? u8{0} : errors_[head_]; }
    [[nodiscard]] bool any_errors() const;
    void clear() { head_ = count_ = 0; }
    // The caller has checked that there is room.
    void push(u8 byte, u8 errors);
    [[nodiscard]] u8 front() const { return data_[head_]; }
    void pop();
    void replace_front(u8 byte, u8 errors);
    void clear_front_errors() { errors_[head_] = 0; }

    // Bytes in order of arrival, each followed by its error bits.
    void visit(StateVisitor& v, unsigned id, std::string_view name);
    [[nodiscard]] bool malformed() const { return malformed_; }

private:
    std::array<u8, kFifoDepth> data_{};
    std::array<u8, kFifoDepth> errors_{};
    u8 head_ = 0;
    u8 count_ = 0;
    bool malformed_ = false;  // a load brought something no guest could have made
};

class Uart16550 final : public IoDevice {
public:
    Uart16550(IrqLine irq, Wire& wire, Clock& clock, TimerQueue& timers, FlowControl flow = FlowControl::None)
        : irq_(std::move(irq)), wire_(wire), clock_(clock), flow_(flow), timeout_timer_(timers, *this) {}

    // One byte wide; anything else is refused with BadWidth.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    void reset();

    // --- Host side; call with the device's lock held. ---

    // How many characters receive() would take now. 0 also in loopback mode, and with RtsCts while RTS is
    // off.
    [[nodiscard]] u8 receive_room() const;
    // Characters arrive; takes as many as there is room for and returns how many. The rest stays the
    // caller's.
    std::size_t receive(std::span<const u8> bytes);
    bool receive(u8 byte) { return receive(std::span(&byte, 1)) == 1; }
    // A break arrives: a zero character with BI [PC16550D 8.4]. With no room it is an overrun, as on the
    // wire.
    void receive_break();
    void set_modem_inputs(ModemInputs inputs);
    // The wire has room again after put() returned false.
    void transmit_ready();

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<Ier> ier;
        Flags<Fcr> fcr;
        Flags<Lcr> lcr;
        Flags<Mcr> mcr;
        u8 lsr_errors = 0;  // OE, PE, FE, BI as LSR shows them; the other bits follow from the FIFOs
        u8 msr_deltas = 0;
        Flags<Msr> inputs = Flags(Msr::CTS) | Msr::DSR | Msr::DCD;  // as the far end drives them
        u8 scratch = 0;
        u8 dll = 0;
        u8 dlm = 0;
        u8 thre_pending = 0;     // the THR-empty interrupt has a cause that IIR was not read for
        u8 timeout_pending = 0;  // the character timeout has struck
        u64 timeout_deadline_ns = Timer::kIdle;
        Fifo rx;
        Fifo tx;  // only fills while the wire has no room
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] bool dlab() const { return state_.lcr.has(Lcr::DLAB); }
    [[nodiscard]] bool fifos_enabled() const { return state_.fcr.has(Fcr::Enable); }
    [[nodiscard]] bool loopback() const { return state_.mcr.has(Mcr::LOOP); }
    [[nodiscard]] u8 depth() const { return fifos_enabled() ? kFifoDepth : u8{1}; }
    [[nodiscard]] u8 rx_trigger() const;
    [[nodiscard]] u64 timeout_ns() const;
    [[nodiscard]] Flags<Lsr> line_status() const;
    [[nodiscard]] Flags<Msr> modem_levels() const;
    [[nodiscard]] Iir pending_interrupt() const;
    [[nodiscard]] bool irq_level() const;

    u8 read_register(ReadReg reg);
    void write_register(WriteReg reg, u8 value);
    u8 read_rbr();
    u8 read_iir();
    u8 read_lsr();
    void write_thr(u8 value);
    void write_fcr(u8 value);
    void write_lcr(u8 value);
    void write_mcr(u8 value);
    void write_ier(u8 value);

    void push_received(u8 byte, u8 errors);
    void transmit(u8 byte);
    void drain();
    void note_modem_changes(Flags<Msr> before);
    void restart_timeout();
    void on_timeout();
    void sync() { irq_.set(irq_level()); }

    State state_;
    IrqLine irq_;
    Wire& wire_;
    Clock& clock_;
    FlowControl flow_;
    MemberTimer<Uart16550, &Uart16550::on_timeout> timeout_timer_;
};

static_assert(Snapshotable<Uart16550>);

}  // namespace tessera::uart16550
