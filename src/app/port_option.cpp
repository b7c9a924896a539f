#include "app/port_option.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <utility>

#include "app/settings.h"
#include "devices/virtio_console/virtio_console.h"
#include "devices/virtio_vsock/virtio_vsock_regs.h"

namespace tessera::app {

namespace {

constexpr const char* kPort = "give name=NAME,path=SOCKET";
constexpr const char* kSerial = "give path=SOCKET, and if you like place=bus|root-port";
constexpr const char* kVsock = "give cid=N,path=SOCKET, with N from 3, which is the guest's number";
constexpr Words<PciPlace, 2> kPlaces = {{{"bus", PciPlace::Bus0}, {"root-port", PciPlace::RootPort}}};

// It becomes a file's name in the guest.
std::string take_name(const Setting& setting, PortOption& port) {
    port.name = setting.value.value_or("");
    const bool good =
        !port.name.empty() && port.name.size() <= virtio_console::kLongestName && port.name.front() != '.' &&
        std::ranges::all_of(port.name, [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != '\\'; });
    return good ? ""
                : fmt::format(
                      "give a name of 1 to {} letters without spaces and slashes, such as "
                      "org.qemu.guest_agent.0",
                      virtio_console::kLongestName);
}

template <typename Option>
std::string take_path(const Setting& setting, Option& option) {
    option.path = setting.value.value_or("");
    return option.path.empty() ? "give the path of a socket, as in path=/run/user/1000/agent.sock" : "";
}

constexpr std::array<KnownSetting<PortOption>, 2> kPortSettings{
    {{.name = "name", .take = take_name}, {.name = "path", .take = take_path<PortOption>}}};
constexpr std::array<KnownSetting<SerialOption>, 2> kSerialSettings{
    {{.name = "path", .take = take_path<SerialOption>},
     {.name = "place", .take = [](const Setting& s, SerialOption& o) {
          return take_word(s.value.value_or(""), kPlaces, o.place);
      }}}};

constexpr std::array<KnownSetting<VsockOption>, 2> kVsockSettings{
    {{.name = "cid",
      .take =
          [](const Setting& s, VsockOption& o) {
              return take_number<u32>(s.value.value_or(""), virtio_vsock::kLeastGuestCid,
                                      virtio_vsock::kMostGuestCid, o.cid);
          }},
     {.name = "path", .take = take_path<VsockOption>}}};

}  // namespace

std::expected<PortOption, std::string> parse_port(std::string_view text) {
    PortOption port;
    std::string wrong = take_settings<PortOption>(
        "--port", text, split_settings(text, Commas::DoubledAreText), kPortSettings, kPort, port);
    if (wrong.empty() && (port.name.empty() || port.path.empty()))
        wrong = refuse_setting("--port", text, text, kPort);
    if (!wrong.empty()) return std::unexpected(std::move(wrong));
    return port;
}

std::expected<SerialOption, std::string> parse_serial(std::string_view text) {
    SerialOption serial;
    std::string wrong = take_settings<SerialOption>(
        "--serial", text, split_settings(text, Commas::DoubledAreText), kSerialSettings, kSerial, serial);
    if (wrong.empty() && serial.path.empty()) wrong = refuse_setting("--serial", text, text, kSerial);
    if (!wrong.empty()) return std::unexpected(std::move(wrong));
    return serial;
}

std::expected<VsockOption, std::string> parse_vsock(std::string_view text) {
    VsockOption vsock;
    std::string wrong = take_settings<VsockOption>(
        "--vsock", text, split_settings(text, Commas::DoubledAreText), kVsockSettings, kVsock, vsock);
    if (wrong.empty() && (vsock.cid == 0 || vsock.path.empty()))
        wrong = refuse_setting("--vsock", text, text, kVsock);
    if (!wrong.empty()) return std::unexpected(std::move(wrong));
    return vsock;
}

}  // namespace tessera::app
