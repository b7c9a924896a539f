// The shape of the tree: includes point down only, files stay readable, documents name what exists.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TESSERA_SOURCE_DIR;

// The rows of ARCHITECTURE.md, lowest first. A unit may include what is in lower rows, and itself.
const std::vector<std::vector<std::string>> kRows = {
    {"base"},    {"snapshot"},    {"bus", "memory"},
    {"cpu/x86"}, {"cpu", "boot"}, {"cpu/soft", "cpu/kvm", "devices/*", "backends/*"},
    {"vm"},      {"machines"},    {"config"},
    {"manage"},  {"app"},
};

// Within one row, who may include whom: shared vocabulary of chips, and the loop every backend needs.
const std::set<std::pair<std::string, std::string>> kNeighbours = {
    {"devices/acpi_pm", "devices/reset_control"},
    {"devices/i8042", "devices/reset_control"},
    {"devices/port92", "devices/reset_control"},
    {"cpu/kvm", "cpu/soft"},
    {"devices/ioapic", "devices/lapic"},
    {"backends/char", "backends/event_loop"},
    {"devices/virtio", "devices/pci"},
    {"devices/pci_uart", "devices/pci"},
    {"devices/virtio_rng", "devices/virtio"},
    {"backends/net", "backends/event_loop"},
    {"devices/virtio_blk", "devices/virtio"},
    {"devices/virtio_blk", "backends/block"},
    {"devices/virtio_net", "devices/virtio"},
    {"devices/virtio_net", "backends/net"},
    {"devices/virtio_balloon", "devices/virtio"},
    {"devices/virtio_console", "devices/virtio"},
    {"backends/char", "backends/unix_socket"},
    {"devices/virtio_vsock", "devices/virtio"},
    {"devices/virtio_vsock", "backends/vsock"},
    {"devices/ne2000", "devices/pci"},
    {"devices/ne2000", "backends/net"},
    {"devices/ahci", "devices/ata"},
    {"devices/ahci", "devices/pci"},
    {"devices/ahci", "backends/block"},
    {"devices/ata", "backends/block"},
    {"backends/vsock", "backends/event_loop"},
    {"backends/vsock", "backends/unix_socket"},
};

bool is_source(const fs::path& path) {
    return path.extension() == ".cpp" || path.extension() == ".h" || path.extension() == ".S" ||
           path.extension() == ".inc";
}

// Files of the tree, relative to it; build trees and hidden folders are not part of it.
std::vector<fs::path> files_below(const fs::path& top) {
    std::vector<fs::path> files;
    if (!fs::exists(kRoot / top)) return files;
    for (auto it = fs::recursive_directory_iterator(kRoot / top); it != fs::recursive_directory_iterator();
         ++it) {
        const std::string name = it->path().filename().string();
        if (it->is_directory() && (name.starts_with(".") || name == "build" || name == "__pycache__"))
            it.disable_recursion_pending();
        else if (it->is_regular_file())
            files.push_back(fs::relative(it->path(), kRoot));
    }
    return files;
}

std::string read(const fs::path& path) {
    std::stringstream text;
    text << std::ifstream(kRoot / path).rdbuf();
    return text.str();
}

// "src/devices/lapic/lapic.h" -> "devices/lapic"; deeper folders belong to their unit.
std::string unit_of(const std::string& path_in_src) {
    std::vector<std::string> parts;
    for (const auto& part : fs::path(path_in_src).parent_path()) parts.push_back(part.string());
    if (parts.empty()) return "";
    const bool two_levels = parts[0] == "devices" || parts[0] == "backends" || parts[0] == "cpu";
    return two_levels && parts.size() > 1 ? parts[0] + "/" + parts[1] : parts[0];
}

std::optional<std::size_t> row_of(const std::string& unit) {
    for (std::size_t row = 0; row < kRows.size(); ++row)
        for (const std::string& pattern : kRows[row]) {
            if (pattern == unit) return row;
            if (pattern.ends_with("/*") && unit.starts_with(pattern.substr(0, pattern.size() - 1)))
                return row;
        }
    return std::nullopt;
}

bool is_test(const std::string& path) {
    return path.ends_with("_test.cpp") || path.ends_with("_rig.h") ||
           path.find("_test_") != std::string::npos || path.find("/testing/") != std::string::npos;
}

std::vector<std::string> quoted_includes(const std::string& text) {
    static const std::regex kInclude(R"re((?:^|\n)\s*#\s*include\s+"([^"]+)")re");
    std::vector<std::string> includes;
    for (std::sregex_iterator it(text.begin(), text.end(), kInclude), end; it != end; ++it)
        includes.push_back((*it)[1]);
    return includes;
}

TEST(LayoutTest, EveryFolderOfTheSourceHasARow) {
    for (const fs::path& path : files_below("src")) {
        if (!is_source(path)) continue;
        const std::string unit = unit_of(fs::relative(path, "src").string());
        EXPECT_TRUE(row_of(unit).has_value()) << path << ": '" << unit << "' is in no row";
    }
}

TEST(LayoutTest, IncludesPointDownOnly) {
    int seen = 0;
    for (const fs::path& path : files_below("src")) {
        if (!is_source(path)) continue;
        const std::string unit = unit_of(fs::relative(path, "src").string());
        for (const std::string& include : quoted_includes(read(path))) {
            const std::string other = unit_of(include);
            EXPECT_TRUE(fs::exists(kRoot / "src" / include))
                << path << " includes \"" << include << "\": includes are written from src/";
            if (other == unit || !row_of(unit) || !row_of(other)) continue;
            ++seen;
            const bool neighbours = kNeighbours.contains({unit, other}) || is_test(path.string());
            const bool down =
                *row_of(other) < *row_of(unit) || (*row_of(other) == *row_of(unit) && neighbours);
            EXPECT_TRUE(down) << path << " (" << unit << ") includes " << include << " (" << other << ")";
        }
    }
    EXPECT_GT(seen, 100) << "the test looks in the wrong place";
}

TEST(LayoutTest, NoProductFileIncludesATestsHeader) {
    for (const fs::path& path : files_below("src"))
        if (is_source(path) && !is_test(path.string()))
            for (const std::string& include : quoted_includes(read(path)))
                EXPECT_FALSE(is_test("src/" + include)) << path << " includes " << include;
}

// Tables and tests are read by searching, not from top to bottom.
TEST(LayoutTest, NoFileIsLongerThan800Lines) {
    constexpr int kMostLines = 800;
    for (const char* top : {"src", "examples", "bench", "fuzz"})
        for (const fs::path& path : files_below(top)) {
            const std::string name = path.string();
            if (!is_source(path) || is_test(name) || name.find("table") != std::string::npos) continue;
            const std::string text = read(path);
            EXPECT_LE(std::ranges::count(text, '\n'), kMostLines) << path << ": split it by function";
        }
}

TEST(LayoutTest, NoFolderIsCalledUtilCommonMiscOrCore) {
    for (const char* top : {"src", "tests", "examples", "bench", "fuzz", "tools", "docs"})
        for (const fs::path& path : files_below(top))
            for (const auto& part : path.parent_path())
                for (const char* vague : {"util", "utils", "common", "misc", "core"})
                    EXPECT_NE(part.string(), vague) << path << ": name the folder after what is in it";
}

// A path is what stands in backquotes and has a slash or a file's ending.
TEST(LayoutTest, EveryPathInTheDocumentsExists) {
    static const std::regex kQuoted("`([A-Za-z0-9_./-]+)`");
    static const std::regex kPath(
        R"((?:src|tests|tools|docs|fuzz|bench|examples|cmake|\.ci)(?:/[A-Za-z0-9_.-]+)*/?)");
    int seen = 0;
    for (const char* document : {"ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"}) {
        ASSERT_TRUE(fs::exists(kRoot / document)) << document;
        const std::string text = read(document);
        for (std::sregex_iterator it(text.begin(), text.end(), kQuoted), end; it != end; ++it) {
            const std::string path = (*it)[1];
            if (!std::regex_match(path, kPath)) continue;
            ++seen;
            EXPECT_TRUE(fs::exists(kRoot / path)) << document << " names " << path;
        }
    }
    EXPECT_GT(seen, 15) << "the test finds no paths";
}

// [A-Z...] citations have an entry in docs/specs.md.
TEST(LayoutTest, EveryCitedSpecificationIsListed) {
    static const std::regex kCitation(R"((?:^|[\s(|])\[([A-Z][A-Za-z0-9./+-]{2,})(?:[ \]]))");
    const std::string specs = read("docs/specs.md");
    std::set<std::string> missing;
    for (const fs::path& path : files_below("src")) {
        if ((!is_source(path) && path.extension() != ".md") || is_test(path.string())) continue;
        std::istringstream lines(read(path));
        for (std::string line; std::getline(lines, line);) {
            const auto comment = line.find("//");
            if (path.extension() != ".md" && comment == std::string::npos) continue;
            const std::string text = path.extension() == ".md" ? line : line.substr(comment);
            for (std::sregex_iterator it(text.begin(), text.end(), kCitation), end; it != end; ++it)
                if (specs.find("`" + (*it)[1].str() + "`") == std::string::npos)
                    missing.insert((*it)[1].str() + " in " + path.string());
        }
    }
    for (const std::string& citation : missing) ADD_FAILURE() << "docs/specs.md has no " << citation;
}

}  // namespace
