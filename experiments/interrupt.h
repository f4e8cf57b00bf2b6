#pragma once

namespace specmoe::cli {

/// Thrown between steps once a signal asked the program to end; unwinding removes what is half written.
struct Interrupted {
  int signal = 0;
};

/// From now on SIGINT, SIGTERM, SIGHUP and SIGPIPE only leave a note for poll_interrupt(). A second one ends the
/// program at once.
void catch_signals();

/// Throws Interrupted when a signal has come.
void poll_interrupt();

}  // namespace specmoe::cli
