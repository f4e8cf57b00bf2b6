#include "experiments/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace specmoe::cli {
namespace {

volatile std::sig_atomic_t caught_signal = 0;

extern "C" void note_signal(int signal) { caught_signal = signal; }

}  // namespace

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGPIPE}) sigaction(signal, &action, nullptr);
  struct sigaction hangup{};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler == SIG_DFL) sigaction(SIGHUP, &action, nullptr);  // under nohup it stays ignored
  std::signal(SIGXFSZ, SIG_IGN);  // past `ulimit -f` a write then fails, and says why
}

void poll_interrupt() {
  if (caught_signal != 0) throw Interrupted{static_cast<int>(caught_signal)};
}

}  // namespace specmoe::cli
