#include "core/nn/text_stop.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/check.h"

namespace specmoe::nn {
namespace {

std::shared_ptr<const Tokenizer> gpt2() {
  static const auto tokenizer = Tokenizer::from_file(std::string(SPECMOE_TEST_DATA) + "/golden/tokenizer/gpt2.json");
  return tokenizer;
}

/// What push() had settled after each token, then the whole text.
struct Course {
  std::vector<std::string> settled;
  std::string text;
  int tokens_taken = 0;
  bool stopped = false;
};

Course run(const std::string& text, const std::vector<std::string>& stops) {
  TextStop stop(gpt2(), stops);
  Course course;
  for (TokenId token : gpt2()->encode(text, false)) {
    ++course.tokens_taken;
    course.stopped = stop.push(token);
    course.settled.push_back(stop.text().substr(0, stop.settled()));
    if (course.stopped) break;
  }
  stop.finish();
  EXPECT_EQ(stop.settled(), stop.text().size());
  course.text = stop.text();
  return course;
}

TEST(TextStop, CutsBeforeAStopStringThatSpansTokens) {
  const Course course = run("Hello world. The END of it", {"The END"});
  EXPECT_TRUE(course.stopped);
  EXPECT_EQ(course.text, "Hello world. ");
}

TEST(TextStop, StopsAtTheTokenThatCompletesIt) {
  const std::string before = "Hello world. The END";
  const Course course = run(before + " of it", {"The END"});
  EXPECT_EQ(course.tokens_taken, static_cast<int>(gpt2()->encode(before, false).size()));
}

TEST(TextStop, NeverShowsPartOfAStopString) {
  const Course course = run("Hello world. The END of it", {"The END"});
  for (const std::string& settled : course.settled) EXPECT_TRUE(course.text.starts_with(settled)) << settled;
}

TEST(TextStop, GivesBackWhatOnlyLookedLikeOne) {
  const Course course = run("Hello world. The Everest", {"The END"});
  EXPECT_FALSE(course.stopped);
  EXPECT_EQ(course.text, "Hello world. The Everest");
  for (const std::string& settled : course.settled) {
    EXPECT_FALSE(settled.ends_with("The")) << "shown before it was sure not to be a stop string";
  }
}

TEST(TextStop, TheEarliestOfSeveralWins) {
  EXPECT_EQ(run("one two three four", {"four", "three", "two"}).text, "one ");
  EXPECT_EQ(run("aab", {"ab", "aab"}).text, "");
}

TEST(TextStop, FindsOneThatBeginsAfterAFalseStart) { EXPECT_EQ(run("x\n\n\nEnd", {"\n\nE"}).text, "x\n"); }

TEST(TextStop, DecodesWholeCharactersWithoutStops) {
  const std::string text = "caf\xC3\xA9 \xF0\x9F\x98\x80!";
  EXPECT_EQ(run(text, {}).text, text);
}

TEST(TextStop, IgnoresTokensBehindTheEnd) {
  TextStop stop(gpt2(), {"lo"});
  for (TokenId token : gpt2()->encode("Hello world", false)) stop.push(token);
  stop.finish();
  EXPECT_EQ(stop.text(), "Hel");
  EXPECT_TRUE(stop.stopped());
}

TEST(TextStop, RefusesAnEmptyStopString) { EXPECT_THROW(TextStop(gpt2(), {"a", ""}), Error); }

}  // namespace
}  // namespace specmoe::nn
