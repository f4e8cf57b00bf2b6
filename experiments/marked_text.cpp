#include "experiments/marked_text.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ostream>
#include <utility>

#include "kernels/check.h"

namespace specmoe::cli {

MarkStyle mark_style(const std::string& name) {
  if (name == "auto") {
    const bool colour = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    return colour ? MarkStyle::kAnsi : MarkStyle::kNone;
  }
  if (name == "ansi") return MarkStyle::kAnsi;
  if (name == "brackets") return MarkStyle::kBrackets;
  SPECMOE_CHECK(name == "none", "--mark: expected auto, ansi, brackets or none, got '", name, "'");
  return MarkStyle::kNone;
}

TextPrinter::TextPrinter(std::ostream& out, MarkStyle style, std::shared_ptr<const nn::Tokenizer> tokenizer,
                         std::vector<std::string> stops)
    : out_(out), style_(style), stop_(std::move(tokenizer), std::move(stops)) {}

bool TextPrinter::push(TokenId token, bool from_draft) {
  const std::size_t before = stop_.text().size();
  const bool stopped = stop_.push(token);
  extend(before, from_draft);
  print_settled();
  return stopped;
}

void TextPrinter::finish() {
  const std::size_t before = stop_.text().size();
  stop_.finish();
  extend(before, last_from_draft_);
  print_settled();
  set_mark(false);
  out_.flush();
}

/// Text that a token completed counts as that token's own.
void TextPrinter::extend(std::size_t before, bool from_draft) {
  if (stop_.text().size() > before) pieces_.push_back({stop_.text().size(), from_draft});
  last_from_draft_ = from_draft;
}

void TextPrinter::print_settled() {
  const std::size_t settled = stop_.settled();
  while (printed_ < settled) {
    const Piece& piece = pieces_[next_piece_];
    const std::size_t end = std::min(piece.end, settled);
    set_mark(piece.from_draft);
    out_ << std::string_view(stop_.text()).substr(printed_, end - printed_);
    printed_ = end;
    if (end == piece.end) ++next_piece_;
  }
  out_.flush();
}

void TextPrinter::set_mark(bool on) {
  if (on == marked_) return;
  marked_ = on;
  if (style_ == MarkStyle::kAnsi) out_ << (on ? "\033[4;32m" : "\033[0m");
  if (style_ == MarkStyle::kBrackets) out_ << (on ? "⟦" : "⟧");
}

std::string print_record(std::ostream& out, MarkStyle style, std::shared_ptr<const nn::Tokenizer> tokenizer,
                         const std::vector<std::string>& stops, const RequestRecord& record) {
  TextPrinter printer(out, style, std::move(tokenizer), stops);
  for (std::size_t i = 0; i < record.tokens.size(); ++i) printer.push(record.tokens[i], record.from_draft[i] != 0);
  printer.finish();
  return printer.text();
}

}  // namespace specmoe::cli
