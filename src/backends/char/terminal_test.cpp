#include "backends/char/terminal.h"

#include <csignal>
#include <cstdlib>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace tessera {
namespace {

struct TerminalTest : testing::Test {
    TerminalTest() { EXPECT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0); }
    ~TerminalTest() override {
        (void)close(master);
        (void)close(slave);
    }
    [[nodiscard]] tcflag_t local_modes() const {
        termios now{};
        EXPECT_EQ(tcgetattr(slave, &now), 0);
        return now.c_lflag;
    }
    // Runs `leave` in a child that has the terminal in raw mode, and waits for its end.
    template <typename F>
    int status_after(F leave) {
        const pid_t child = fork();
        if (child == 0) {
            auto raw = RawTerminal::enter(slave);
            if (!raw || (local_modes() & ICANON) != 0) _exit(77);
            leave();
            _exit(78);
        }
        int status = 0;
        EXPECT_EQ(waitpid(child, &status, 0), child);
        return status;
    }
    int master = -1;
    int slave = -1;
};

TEST_F(TerminalTest, IsRawWhileTheObjectLivesAndAsBeforeAfterwards) {
    const tcflag_t before = local_modes();
    ASSERT_NE(before & ICANON, 0U);
    {
        const auto raw = RawTerminal::enter(slave);
        ASSERT_TRUE(raw.has_value());
        EXPECT_EQ(local_modes() & (ICANON | ECHO | ISIG), 0U);
        RawTerminal::suspend();
        EXPECT_EQ(local_modes(), before);
        RawTerminal::resume();
        EXPECT_EQ(local_modes() & (ICANON | ECHO | ISIG), 0U);
    }
    EXPECT_EQ(local_modes(), before);
}

TEST_F(TerminalTest, IsPutBackByExit) {
    const tcflag_t before = local_modes();
    const int status = status_after([] { std::exit(5); });  // NOLINT(concurrency-mt-unsafe)
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 5);
    EXPECT_EQ(local_modes(), before);
}

TEST_F(TerminalTest, IsPutBackByAbort) {
    const tcflag_t before = local_modes();
    const int status = status_after([] { std::abort(); });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    EXPECT_EQ(local_modes(), before);
}

TEST_F(TerminalTest, IsPutBackByACrash) {
    const tcflag_t before = local_modes();
    const int status = status_after([] { (void)raise(SIGSEGV); });
    // A sanitizer turns the signal into an exit of its own.
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) != 78);
    EXPECT_EQ(local_modes(), before);
}

TEST_F(TerminalTest, RefusesWhatIsNotATerminal) {
    std::FILE* file = std::tmpfile();
    EXPECT_FALSE(RawTerminal::enter(fileno(file)).has_value());
    (void)std::fclose(file);
}

}  // namespace
}  // namespace tessera
