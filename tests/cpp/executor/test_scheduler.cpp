#include <random>
#include <sstream>

#include "check.h"
#include "executor/scheduler.h"

using namespace higgs_rt;

namespace {

using Views = std::vector<SequenceView>;

SchedulerLimits limits(std::int32_t max_batch, std::int32_t max_step_tokens,
                       std::int32_t block_tokens = 4) {
  return {max_batch, max_step_tokens, {.block_tokens = block_tokens, .num_blocks = 1000}};
}

// A sequence in decode: all but the last position cached.
SequenceView decoding(std::int32_t size, std::int32_t block_tokens = 4) {
  return {size, size - 1, (size - 1 + block_tokens - 1) / block_tokens, false};
}

// "-preempted ... +admitted sequence:rows ..."
std::string text(const Plan& plan) {
  std::ostringstream out;
  for (const std::int32_t i : plan.preempt) out << '-' << i << ' ';
  out << '+' << plan.admit;
  for (const Plan::Work& work : plan.work) out << ' ' << work.sequence << ':' << work.rows;
  return out.str();
}

}  // namespace

TEST("scheduler: decode rows come first, then the prompt in chunks") {
  const Views running = {{100, 0, 25, false}, decoding(9), decoding(12)};
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 10)), "+0 1:1 2:1 0:14");
  const Views later = {{100, 98, 25, false}, decoding(9), decoding(12)};
  EXPECT_EQ(text(make_plan(limits(4, 16), later, {}, 10)), "+0 1:1 2:1 0:2");
}

TEST("scheduler: prompts and decode rows take turns where they go apart") {
  SchedulerLimits apart = limits(6, 16);
  apart.separate_decode = true;
  // A prompt, a stream, one in the middle of being computed again, and one whose prompt has ended.
  const Views running = {{.size = 40, .blocks = 10, .prompt = 39},
                         {.size = 9, .computed = 8, .blocks = 3, .prompt = 4},
                         {.size = 12, .computed = 6, .blocks = 3, .prompt = 5},
                         {.size = 7, .computed = 6, .blocks = 2, .prompt = 6}};
  const auto plan = [&](const Views& views, std::int32_t prompt_turns) {
    return make_plan(apart, views, {}, 10, 0, {}, prompt_turns);
  };
  EXPECT_EQ(text(plan(running, 0)), "+0 0:16");
  EXPECT(!plan(running, 0).decode);
  EXPECT_EQ(text(plan(running, 1)), "+0 1:1 3:1 2:1");
  EXPECT(plan(running, 1).decode);
  const Views others(running.begin() + 1, running.end());
  EXPECT_EQ(text(plan(others, 0)), "+0 0:1 2:1 1:1");
  EXPECT_EQ(text(plan({running[0]}, 1)), "+0 0:16");
  // Up to three turns of prompts while there are first columns alone.
  EXPECT_EQ(text(plan({running[3], running[0]}, 2)), "+0 1:16");
  EXPECT_EQ(text(plan({running[3], running[0]}, 3)), "+0 0:1");
}

TEST("scheduler: a prompt that was found as a whole starts with a decode row") {
  SchedulerLimits apart = limits(6, 16);
  apart.separate_decode = true;
  apart.max_held_steps = 8;
  const std::vector<std::int32_t> references(8, 1);
  const std::vector<std::int32_t> cached = {0, 1};
  const SequenceView found = {.size = 9, .computed = 8, .shared = cached, .prompt = 8};
  const SequenceView fresh = {.size = 9, .prompt = 8};
  const SequenceView again = {.size = 12, .computed = 8, .shared = cached, .prompt = 8};
  const SequenceView stream = {.size = 9, .computed = 8, .blocks = 3, .prompt = 4};
  const auto plan = [&](const Views& running, const Views& waiting, std::int32_t prompt_turns) {
    return make_plan(apart, running, waiting, 10, 0, references, prompt_turns);
  };
  const Plan alone = plan({}, {found, found}, 0);
  EXPECT_EQ(text(alone), "+2 0:1 1:1");
  EXPECT(alone.decode);
  // Beside prompt rows it takes its blocks; in a turn of decode rows it waits for nobody younger.
  EXPECT_EQ(text(plan({stream}, {found, fresh, found}, 0)), "+3 1:0 2:8 3:0");
  EXPECT_EQ(text(plan({stream}, {found, fresh, found}, 1)), "+1 0:1 1:1");
  EXPECT_EQ(text(plan({stream}, {fresh, found}, 1)), "+0 0:1");
  // One that was preempted: its last column is not the next one, so others go first.
  EXPECT_EQ(text(plan({again, stream}, {found}, 0)), "+1 1:1 2:1 0:1");
  // It is not held with others.
  apart.max_batch = 12;
  const Plan held = plan(Views(8, stream), {found, {.size = 5, .prompt = 4}}, 0);
  EXPECT(held.held && held.decode);
  EXPECT_EQ(text(held), "+1 0:1 1:1 2:1 3:1 4:1 5:1 6:1 7:1 8:1");
}

TEST("scheduler: waiting sequences are admitted in order and share the step") {
  const Views waiting = {{.size = 10}, {.size = 3}, {.size = 5}};
  EXPECT_EQ(text(make_plan(limits(8, 64), {}, waiting, 100)), "+3 0:10 1:3 2:5");
  EXPECT_EQ(text(make_plan(limits(2, 64), {}, waiting, 100)), "+2 0:10 1:3");
  EXPECT_EQ(text(make_plan(limits(8, 12), {}, waiting, 100)), "+2 0:10 1:2");
  EXPECT_EQ(text(make_plan(limits(8, 12), {}, {}, 100)), "+0");
}

TEST("scheduler: nothing overtakes a waiting sequence that lacks blocks") {
  const Views running = {decoding(8)};
  const Views waiting = {{.size = 40}, {.size = 1}};
  EXPECT_EQ(text(make_plan(limits(8, 64), running, waiting, 10)), "+0 0:1");  // one in reserve
  EXPECT_EQ(text(make_plan(limits(8, 64), running, waiting, 11)), "+1 0:1 1:40");
  EXPECT_EQ(text(make_plan(limits(8, 64), running, waiting, 13)), "+2 0:1 1:40 2:1");
}

TEST("scheduler: sequences that can grow no more need no block in reserve") {
  SchedulerLimits slots = limits(4, 64, 100);  // a block is a whole sequence
  slots.max_sequence_blocks = 1;
  const Views running = {decoding(9, 100), decoding(7, 100), {50, 10, 1, false}};
  const Views waiting = {{.size = 5}, {.size = 6}};
  EXPECT_EQ(text(make_plan(slots, running, waiting, 1)), "+1 0:1 1:1 2:40 3:5");
  slots.max_sequence_blocks = 2;
  EXPECT_EQ(text(make_plan(slots, running, waiting, 1)), "+0 0:1 1:1 2:40");
}

TEST("scheduler: a decode without a block preempts the most recently admitted") {
  const Views running = {decoding(9), decoding(7), decoding(6)};  // the first needs a block
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 0)), "-2 +0 0:1 1:1");
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 1)), "+0 0:1 1:1 2:1");
  // The youngest never takes from an older one, and waits.
  const Views reversed = {decoding(6), decoding(7), decoding(9)};
  EXPECT_EQ(text(make_plan(limits(4, 16), reversed, {}, 0)), "+0 0:1 1:1");
}

TEST("scheduler: paused sequences are left out and give their blocks first") {
  Views running = {decoding(6), decoding(9), decoding(7)};
  running[0].paused = true;
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 1)), "+0 1:1 2:1");
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 0)), "-0 +0 1:1 2:1");
  const Views waiting = {{.size = 4}};
  running = {decoding(6)};
  running[0].paused = true;
  EXPECT_EQ(text(make_plan(limits(4, 16), running, waiting, 0)), "-0 +1 1:4");
  EXPECT_EQ(text(make_plan(limits(4, 16), running, {}, 0)), "+0");
}

TEST("scheduler: preemption that would not help is not done") {
  // The oldest starts again with 5 blocks and one in reserve; the younger two run in this step.
  const Views running = {{20, 0, 0, false}, decoding(6), decoding(7)};
  EXPECT_EQ(text(make_plan(limits(4, 32), running, {}, 4)), "+0 1:1 2:1");
  EXPECT_EQ(text(make_plan(limits(4, 32), running, {}, 7)), "+0 1:1 2:1 0:20");
  // A younger prompt that has not come far gives way.
  const Views prompt = {{20, 0, 0, false}, {16, 8, 4, false}};
  EXPECT_EQ(text(make_plan(limits(4, 32), prompt, {}, 3)), "-1 +0 0:20");
  EXPECT_EQ(text(make_plan(limits(4, 32), prompt, {}, 0)), "+0 1:8");
}

TEST("scheduler: new prompts wait for others beside decode rows, for a while") {
  SchedulerLimits lim = limits(64, 80);
  lim.max_held_steps = 8;
  const auto held = [&](std::size_t decodes, const Views& waiting, std::int32_t steps) {
    const Plan plan = make_plan(lim, Views(decodes, decoding(6)), waiting, 900, steps);
    EXPECT_EQ(plan.held, plan.admit == 0);
    return plan.held;
  };
  const Views one = {{.size = 10}};
  EXPECT(held(24, one, 0) && held(24, one, 2));
  EXPECT(!held(24, one, 3));  // a step for every 8 decode rows
  EXPECT(!held(7, one, 0));   // few are interrupted
  EXPECT(!held(0, one, 0));   // nobody is
  EXPECT(held(24, {{.size = 20}, {.size = 19}}, 0));
  EXPECT(!held(24, {{.size = 20}, {.size = 20}}, 0));  // half a step
  lim.max_held_steps = 2;
  EXPECT(held(24, one, 1) && !held(24, one, 2));
  // A step that has prompt rows anyway takes others in.
  Views running(24, decoding(6));
  running.push_back({30, 10, 8, false});
  EXPECT_EQ(make_plan(lim, running, one, 900, 0).admit, 1);
  EXPECT(!make_plan(lim, running, {}, 900, 0).held);
}

TEST("scheduler: a sequence that starts pays for cached blocks that nobody holds") {
  const std::vector<std::int32_t> references = {0, 0, 1, 0, 0};
  const std::vector<std::int32_t> idle = {0, 1}, held = {2, 0};
  const auto starting = [](const std::vector<std::int32_t>& cached) {
    return SequenceView{.size = 12, .computed = 8, .shared = cached};
  };
  const auto plan = [&](const Views& waiting, std::int32_t free) {
    return text(make_plan(limits(4, 64), {}, waiting, free, 0, references));
  };
  EXPECT_EQ(plan({starting(idle)}, 3), "+1 0:4");
  EXPECT_EQ(plan({starting(idle)}, 2), "+0");
  EXPECT_EQ(plan({starting(held)}, 2), "+1 0:4");
  EXPECT_EQ(plan({starting(held)}, 1), "+0");
  // The second finds held what the first has taken; neither leaves a block in reserve here.
  EXPECT_EQ(plan({starting(idle), starting(idle)}, 4), "+2 0:4 1:4");
  EXPECT_EQ(plan({starting(idle), starting(idle)}, 3), "+1 0:4");
}

TEST("scheduler: preemption frees what nobody else holds") {
  const std::vector<std::int32_t> references = {2, 2, 1, 1, 1, 1};
  const std::vector<std::int32_t> first = {0, 1, 2}, second = {0, 1, 3}, third = {4, 5};
  // The oldest needs blocks; the others are in the middle of their prompts.
  Views running = {{13, 12, 3, false, first}, {12, 8, 3, false, second}, {8, 4, 2, true, third}};
  const auto plan = [&](std::int32_t free) {
    return text(make_plan(limits(4, 1), running, {}, free, 0, references));
  };
  EXPECT_EQ(plan(1), "+0 0:1");
  EXPECT_EQ(plan(0), "-2 +0 0:1");
  running[0].size = 29;
  running[0].computed = 28;  // five blocks more: one of the second's and two of the third's
  EXPECT_EQ(plan(1), "+0 1:1");
  EXPECT_EQ(plan(2), "-2 -1 +0 0:1");
  // Both that share are preempted, so the shared blocks are free too.
  running = {{21, 20, 0, false, {}}, {12, 8, 3, false, first}, {12, 8, 3, false, second}};
  EXPECT_EQ(plan(2), "-2 -1 +0 0:1");
  EXPECT_EQ(plan(1), "+0 1:1");
}

namespace {

// Runs the policy alone on a random load and checks every plan's promises.
struct Simulation {
  explicit Simulation(unsigned seed) : random(seed) {
    lim.max_batch = seed % 8 == 0 ? 24 : draw(1, 6);
    lim.max_step_tokens = lim.max_batch + draw(1, 12);
    lim.kv.block_tokens = draw(1, 5);
    lim.kv.num_blocks = lim.kv.blocks_for(30 + draw(0, 60));
    free = lim.kv.num_blocks;
    lim.max_held_steps = draw(0, 3);
    lim.separate_decode = seed % 2 == 0;
    for (int i = draw(1, 2 * lim.max_batch); i > 0; --i) {
      waiting.push_back({.size = draw(2, 20)});
      waiting.back().prompt = waiting.back().size - 1;
      end_waiting.push_back(waiting.back().size + draw(0, 10));
    }
  }
  std::int32_t draw(std::int32_t low, std::int32_t high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(random);
  }

  // Returns the number of steps until all have ended; 0 when that takes too long.
  int run() {
    for (int step = 1; step < 5000; ++step) {
      if (running.empty() && waiting.empty()) return step;
      for (SequenceView& view : running) view.paused = step < 500 && draw(0, 5) == 0;
      const Plan plan = make_plan(lim, running, waiting, free, held, {}, prompt_turns);
      prompt_turns = plan.work.empty() || plan.decode ? 0 : prompt_turns + 1;
      held = plan.held ? held + 1 : 0;
      REQUIRE(held <= lim.max_held_steps && !(plan.held && plan.admit > 0));
      apply(plan);
    }
    return 0;
  }

  void apply(const Plan& plan) {
    std::int32_t oldest = 0;
    while (oldest < size() && running[oldest].paused) ++oldest;
    for (const std::int32_t i : plan.preempt) {
      REQUIRE(running[i].blocks > 0 && i != oldest);
      free += running[i].blocks;
      running[i].blocks = running[i].computed = 0;
    }
    for (std::int32_t i = 0; i < plan.admit; ++i) {
      running.push_back(waiting.front());
      end_running.push_back(end_waiting.front());
      waiting.erase(waiting.begin());
      end_waiting.erase(end_waiting.begin());
    }
    REQUIRE(size() <= lim.max_batch);
    const bool runnable = oldest < size();
    REQUIRE(!runnable || !plan.work.empty());
    std::int32_t rows = 0;
    std::vector<bool> planned(running.size());
    for (const Plan::Work& work : plan.work) {
      SequenceView& view = running[work.sequence];
      REQUIRE(!view.paused && work.rows >= 1 && !planned[work.sequence]);
      planned[work.sequence] = true;
      REQUIRE(view.computed + work.rows <= view.size);
      if (lim.separate_decode) {
        REQUIRE(plan.decode == (view.computed >= view.prompt));
        REQUIRE(plan.decode ? work.rows == 1 : view.computed + work.rows <= view.prompt);
      }
      rows += work.rows;
      const std::int32_t missing = lim.kv.blocks_for(view.size) - view.blocks;
      view.blocks += missing;
      free -= missing;
      view.computed += work.rows;
      if (view.computed == view.size) ++view.size;
    }
    REQUIRE(rows <= lim.max_step_tokens && free >= 0);
    for (std::int32_t i = size() - 1; i >= 0; --i) {
      if (running[i].size <= end_running[i]) continue;
      free += running[i].blocks;
      running.erase(running.begin() + i);
      end_running.erase(end_running.begin() + i);
    }
  }
  std::int32_t size() const { return static_cast<std::int32_t>(running.size()); }

  std::mt19937 random;
  SchedulerLimits lim;
  std::int32_t free;
  std::int32_t held = 0;
  std::int32_t prompt_turns = 0;
  Views running;
  Views waiting;
  std::vector<std::int32_t> end_running;  // size after which the sequence ends
  std::vector<std::int32_t> end_waiting;
};

}  // namespace

TEST("scheduler: 3000 random loads end, within budget and blocks, the oldest never preempted") {
  for (unsigned seed = 0; seed < 3000; ++seed) {
    Simulation simulation(seed);
    REQUIRE(simulation.run() > 0);
    REQUIRE(simulation.free == simulation.lim.kv.num_blocks);
  }
}
