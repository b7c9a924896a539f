#include "backends/char/escape_keys.h"

namespace tessera {

EscapeKeys::Step EscapeKeys::feed(u8 key) {
    if (!escaped_) {
        if (key != kCtrlA) return {.action = Action::Send, .byte = key};
        escaped_ = true;
        return {.action = Action::Wait, .byte = 0};
    }
    escaped_ = false;
    switch (key) {
        case kCtrlA: return {.action = Action::Send, .byte = kCtrlA};
        case 'h':
        case '?': return {.action = Action::Help, .byte = 0};
        case 'x': return {.action = Action::Quit, .byte = 0};
        case 'b': return {.action = Action::Break, .byte = 0};
        case 't': return {.action = Action::TimeStamps, .byte = 0};
        case 's': return {.action = Action::Statistics, .byte = 0};
        case 'c': return {.action = Action::Monitor, .byte = 0};
        default: return {.action = Action::Ignore, .byte = 0};
    }
}

std::string_view EscapeKeys::help() {
    return "\r\n"
           "Ctrl-a h    this help\r\n"
           "Ctrl-a x    quit\r\n"
           "Ctrl-a b    send a break (magic SysRq)\r\n"
           "Ctrl-a t    time stamps on or off\r\n"
           "Ctrl-a s    statistics\r\n"
           "Ctrl-a c    monitor (not in this version)\r\n"
           "Ctrl-a Ctrl-a  send Ctrl-a to the guest\r\n";
}

}  // namespace tessera
