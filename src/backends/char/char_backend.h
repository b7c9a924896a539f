// Both ends of a serial cable between a VM's port and the host: a terminal, a pipe, a program that embeds a
// VM.
#pragma once

#include <cstddef>
#include <span>

#include "base/types.h"

namespace tessera {

// The guest's end. Called by the backend, on any thread but never from inside one of its own methods that the
// guest's end called; takes the locks it needs.
class CharPeer {
public:
    CharPeer() = default;
    CharPeer(const CharPeer&) = delete;
    CharPeer& operator=(const CharPeer&) = delete;
    virtual ~CharPeer() = default;

    // Bytes for the guest; returns how many it took. If not all, receive_ready() is called when there is
    // room.
    virtual std::size_t receive(std::span<const u8> bytes) = 0;
    virtual void receive_break() = 0;
    // put() returned false before, and there is room now.
    virtual void transmit_ready() = 0;
    // Whether somebody is at the host's end; until this is called there is.
    virtual void attended(bool /*somebody*/) {}
    // The host's end is a terminal of this size.
    virtual void resized(u16 /*columns*/, u16 /*rows*/) {}
};

// The host's end. put() and receive_ready() are called with the guest's device locked: they may neither wait
// nor call the peer.
class CharBackend {
public:
    CharBackend() = default;
    CharBackend(const CharBackend&) = delete;
    CharBackend& operator=(const CharBackend&) = delete;
    virtual ~CharBackend() = default;

    // A byte from the guest. False: no room, the guest's end keeps it and waits for transmit_ready().
    virtual bool put(u8 byte) = 0;
    // Several; returns how many it took. If not all, the same holds.
    virtual std::size_t put_some(std::span<const u8> bytes) {
        std::size_t took = 0;
        while (took < bytes.size() && put(bytes[took])) ++took;
        return took;
    }
    // The guest has read, and would take bytes again.
    virtual void receive_ready() = 0;
    // Called once before the guest starts, and with null when it is gone.
    virtual void connect(CharPeer* peer) = 0;
};

// Nobody is listening: the guest's output is dropped.
class NullChar final : public CharBackend {
public:
    bool put(u8 /*byte*/) override { return true; }
    std::size_t put_some(std::span<const u8> bytes) override { return bytes.size(); }
    void receive_ready() override {}
    void connect(CharPeer* /*peer*/) override {}
};

}  // namespace tessera
