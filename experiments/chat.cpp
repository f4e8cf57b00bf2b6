#include "experiments/chat.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/nn/chat_template.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

/// What a child process reads or writes, kept in memory: nobody waits for a pipe.
class Stream {
 public:
  Stream() : file_(memfd_create("specmoe chat", MFD_CLOEXEC)) {
    SPECMOE_CHECK(file_ >= 0, "--chat: cannot make a file in memory: ", std::strerror(errno));
  }
  ~Stream() { close(file_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int file() const { return file_; }
  std::string path() const { return concat("/proc/self/fd/", file_); }

 private:
  int file_;
};

/// The exit status of `arguments`, a program and what it is given; 127 when it cannot be started.
int run(std::vector<std::string> arguments, const Stream& input, const Stream& output, const Stream& errors) {
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.file(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output.file(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, errors.file(), STDERR_FILENO);
  pid_t child = 0;
  const int error = posix_spawnp(&child, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  constexpr int kNotStarted = 127;
  if (error != 0) return kNotStarted;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : kNotStarted;
}

std::string last_line(const Stream& stream) {
  std::ifstream file(stream.path());
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

void write_questions(const std::vector<Prompt>& prompts, const Stream& to) {
  using Json = nlohmann::json;
  std::ofstream file(to.path());
  for (const Prompt& prompt : prompts) {
    SPECMOE_CHECK(!prompt.rendered, "--chat: question ", prompt.id, " is rendered already; leave --chat out");
    const Json row = {{"question_id", prompt.id}, {"turns", prompt.turns}, {"answers", prompt.answers}};
    file << row.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  }
}

}  // namespace

void render_chat(const std::string& target, std::vector<Prompt>& prompts) {
  SPECMOE_CHECK(nn::find_chat_template(target), "--chat: ", target, " has no chat template; leave --chat out");
  const char* chosen = std::getenv("SPECMOE_PYTHON");
  const std::string python = chosen != nullptr ? chosen : "python3";
  const Stream questions, rendered, errors;
  write_questions(prompts, questions);
  const int status = run({python, "-m", "specmoe.chat_prompts", "--target", target, "--prompts", "/dev/stdin"},
                         questions, rendered, errors);
  const std::string complaint = last_line(errors);
  const std::string own = "specmoe.chat_prompts: ";
  SPECMOE_CHECK(status == 0 || !complaint.starts_with(own),
                "--chat: ", complaint.substr(std::min(own.size(), complaint.size())));
  SPECMOE_CHECK(status == 0, "--chat: `", python, " -m specmoe.chat_prompts`, which renders the template, failed",
                complaint.empty() ? "" : ": ", complaint,
                "; name a Python that has the package specmoe in SPECMOE_PYTHON, such as .venv/bin/python");
  const std::vector<Prompt> answers = read_prompts(rendered.path());
  SPECMOE_CHECK(answers.size() == prompts.size(), "--chat: ", prompts.size(), " questions became ", answers.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].text = answers[i].text;
    prompts[i].rendered = true;
  }
}

}  // namespace specmoe::cli
