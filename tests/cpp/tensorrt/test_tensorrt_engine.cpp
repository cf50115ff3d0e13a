// The TensorRT engine over the test double, against transformers' logits and the native engine.
#include <array>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>

#include "check.h"
#include "engine/golden.h"
#include "io/checkpoint.h"
#include "tensorrt/plan_rig.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::array kLayouts = {"transformers", "original"};

FolderOptions folder(const std::string& layout) {
  FolderOptions options;
  options.model_dir = golden_model(layout);
  return options;
}

// The golden sequence in one slot.
Sequence slot_sequence(const std::string& layout, std::int32_t slot) {
  Sequence sequence = golden_sequence(layout);
  sequence.blocks = {slot};
  return sequence;
}

// Logits of the native engine, whole.
Logits native_logits(const std::string& layout) {
  Model model(layout, 64, make_cpu_device(), std::nullopt, /*pack_weights=*/false);
  Sequence sequence = golden_sequence(layout);
  return feed(model.engine(), sequence, {64});
}

// A tail that keeps what it was given; -1 is no row.
class KeptTail {
 public:
  explicit KeptTail(const EngineSpec& spec)
      : last(4 * static_cast<std::size_t>(spec.num_codebooks), -1), spec_(spec) {}
  StepTail tail() {
    return {last.data(), 4,
            [this](const float* logits, const std::int32_t* rows, std::int32_t count) {
              const std::int64_t width = spec_.num_codebooks * spec_.codebook_vocab;
              for (std::int32_t i = 0; i < count; ++i) {
                if (rows[i] < 0) continue;
                kept[rows[i]].assign(logits + i * width, logits + (i + 1) * width);
              }
              ++runs;
            }};
  }

  std::vector<std::int32_t> last;  // columns [4 sampler rows, codebooks]
  std::map<std::int32_t, Logits> kept;
  std::int64_t runs = 0;

 private:
  const EngineSpec& spec_;
};

// One step that wants the logits of each portion's last row, for sampler rows 3, 2, 1, …; what the
// tail got, by portion.
std::vector<Logits> step_with_tail(TensorRtEngine& engine, KeptTail& tail,
                                   const std::vector<Portion>& portions) {
  StepBatch batch = build_batch(portions, engine.spec());
  for (std::size_t s = 0; s < portions.size(); ++s) {
    for (std::int32_t row = 0; row < batch.num_rows(); ++row) {
      const auto index = static_cast<std::size_t>(row);
      if (batch.sequence[index] == static_cast<std::int32_t>(s) &&
          batch.position[index] + 1 == batch.context_length[s]) {
        batch.logit_rows.push_back(row);
      }
    }
    batch.sampler_rows.push_back(3 - static_cast<std::int32_t>(s));
  }
  StepOutput output;
  output.last_columns = tail.last.data();
  tail.kept.clear();
  tail.runs = 0;
  engine.forward(batch, output);
  EXPECT(output.sampled);
  EXPECT_EQ(tail.runs, 1);
  EXPECT_EQ(tail.kept.size(), portions.size());
  std::vector<Logits> out;
  for (std::size_t s = 0; s < portions.size(); ++s) {
    portions[s].sequence->done += portions[s].count;
    out.push_back(tail.kept[3 - static_cast<std::int32_t>(s)]);
  }
  return out;
}

// The next portions of the sequences: one column, or up to nine positions of a prompt. Columns are
// fed back through the tail's rows.
std::vector<Portion> next_portions(std::vector<Sequence>& sequences, std::int64_t round,
                                   KeptTail& tail, bool& decode) {
  std::vector<Portion> portions;
  decode = true;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    Sequence& sequence = sequences[s];
    const auto total = static_cast<std::int32_t>(sequence.positions.size());
    if (sequence.done == total || (s == 1 && round < 4)) continue;  // the second joins later
    Position& position = sequence.positions[static_cast<std::size_t>(sequence.done)];
    const bool column = position.is_audio();
    decode = decode && column;
    if (column) {
      const auto row = 3 - static_cast<std::int32_t>(portions.size());
      std::copy(position.column.begin(), position.column.end(),
                tail.last.begin() + row * static_cast<std::ptrdiff_t>(position.column.size()));
      position.column.clear();
      position.feedback = row;
    }
    portions.push_back({&sequence, column ? 1 : std::min(9, total - sequence.done)});
  }
  return portions;
}

}  // namespace

TEST("tensorrt: logits equal to transformers', and to the native engine's bit for bit") {
  for (const std::string layout : kLayouts) {
    for (const bool inputs : {false, true}) {
      FolderOptions options = folder(layout);
      options.weights_are_inputs = inputs;
      PlanRig model(options);
      Sequence sequence = slot_sequence(layout, 0);
      const Logits logits = feed(model.engine(), sequence, {64});
      EXPECT(largest_difference(logits, golden_logits(layout)) <= 1e-4f);
      EXPECT(logits == native_logits(layout));
    }
  }
}

TEST("tensorrt: chunks, single positions and pieces of a long chunk equal to whole") {
  for (const std::string layout : kLayouts) {
    const Logits expected = native_logits(layout);
    for (const std::int32_t max_prefill : {48, 7, 1}) {
      FolderOptions options = folder(layout);
      options.max_prefill = max_prefill;
      PlanRig model(options);
      std::int32_t slot = 0;
      for (const std::vector<std::int32_t>& sizes :
           {std::vector<std::int32_t>{64}, {1}, {10, 1, 16, 5, 2}, {22, 1}}) {
        Sequence sequence = slot_sequence(layout, slot++);
        EXPECT(feed(model.engine(), sequence, sizes) == expected);
      }
    }
  }
}

TEST("tensorrt: sequences in one step equal to each alone; others' caches stay as they are") {
  for (const std::string layout : kLayouts) {
    const Logits expected = native_logits(layout);
    PlanRig model(folder(layout), 128);
    std::vector<Sequence> sequences;
    for (const std::int32_t slot : {3, 0, 2}) sequences.push_back(slot_sequence(layout, slot));
    std::vector<Logits> got(3);
    const auto total = static_cast<std::int32_t>(sequences[0].positions.size());
    // While one decodes, others are in their prompts, or wait in a slot among those that run.
    const std::vector<std::vector<std::int32_t>> sizes = {{20, 1}, {3, 0, 9, 0, 1}, {0, 5, 0, 1}};
    for (std::size_t round = 0; true; ++round) {
      std::vector<Portion> portions;
      std::vector<std::size_t> who;
      bool done = true;
      for (std::size_t s = 0; s < sequences.size(); ++s) {
        const std::int32_t size = sizes[s][std::min(round, sizes[s].size() - 1)];
        const std::int32_t count = std::min(size, total - sequences[s].done);
        done = done && sequences[s].done == total;
        if (count == 0) continue;
        portions.push_back({&sequences[s], count});
        who.push_back(s);
      }
      if (done) break;
      if (portions.empty()) continue;
      const auto parts = step(model.engine(), portions);
      for (std::size_t i = 0; i < who.size(); ++i) {
        got[who[i]].insert(got[who[i]].end(), parts[i].begin(), parts[i].end());
      }
    }
    for (const Logits& logits : got) EXPECT(logits == expected);
  }
}

TEST("tensorrt: prompt-table rows equal to the tokens with the same embeddings") {
  const Checkpoint checkpoint(golden_model("transformers"));
  for (const std::int32_t most : {8, 1}) {
    FolderOptions options = folder("transformers");
    options.max_prompt_table = most;
    PlanRig model(options);
    const auto hidden = static_cast<std::size_t>(model.spec().hidden_size);
    const TensorView table = checkpoint.tensor("model.embed_tokens.weight",
                                               {model.spec().text_vocab, model.spec().hidden_size});
    Sequence sequence = slot_sequence("transformers", 1);
    for (std::size_t p = 0; p < sequence.positions.size(); p += 2) {
      Position& position = sequence.positions[p];
      if (position.is_audio()) continue;
      const float* row = table.as<float>() + static_cast<std::size_t>(position.text) * hidden;
      position.row.assign(row, row + hidden);
    }
    EXPECT(feed(model.engine(), sequence, {5, 40}) == native_logits("transformers"));
  }
}

TEST("tensorrt: with a tail, decode steps are replayed from one graph per bucket") {
  PlanRig rig(folder("original"));
  const Logits expected = native_logits("original");
  KeptTail tail(rig.spec());
  rig.engine().attach(tail.tail());
  const PlanCounts& counts = rig.engine().counts();
  EXPECT_EQ(counts.recordings, 3);  // buckets 1, 2 and 4
  std::vector<Sequence> sequences;
  for (const std::int32_t slot : {2, 0, 1}) sequences.push_back(slot_sequence("original", slot));
  std::int64_t steps = 0;
  std::int64_t pure = 0;
  while (true) {
    bool decode = false;
    const auto portions = next_portions(sequences, steps++, tail, decode);
    if (portions.empty()) break;
    pure += decode ? 1 : 0;
    const auto logits = step_with_tail(rig.engine(), tail, portions);
    for (std::size_t i = 0; i < portions.size(); ++i) {
      const std::size_t width = logits[i].size();
      const std::size_t end = static_cast<std::size_t>(portions[i].sequence->done) * width;
      EXPECT(width != 0 && std::equal(logits[i].begin(), logits[i].end(),
                                      expected.begin() + static_cast<std::ptrdiff_t>(end - width)));
    }
  }
  EXPECT(pure > 5 && pure + 2 < steps);
  EXPECT_EQ(counts.graph_launches, pure);
  EXPECT(counts.decode_calls > pure);
  // A tail with other columns is recorded anew, and none at all ends the graphs.
  KeptTail other(rig.spec());
  rig.engine().attach(other.tail());
  EXPECT_EQ(counts.recordings, 6);
  StepTail large = other.tail();
  large.num_rows = 5;
  EXPECT_THROWS(rig.engine().attach(large),
                "at most 4 sampler rows (max_batch of the plan), got 5");
  rig.engine().attach({});
  Sequence again = slot_sequence("original", 3);
  EXPECT(feed(rig.engine(), again, {20, 1}) == expected);
  EXPECT_EQ(counts.graph_launches, pure);
}

TEST("tensorrt: a prompt that fails behind sampled decode rows is no step to run again") {
  bool fails = false;
  FakePlanOptions plan;
  plan.before_enqueue = [&fails](std::int32_t profile) {
    if (fails && profile == 0) fail(ErrorCode::kResourceExhausted, "plan", "no memory");
  };
  PlanRig rig(folder("original"), 64, plan);
  KeptTail tail(rig.spec());
  rig.engine().attach(tail.tail());
  Sequence decoding = slot_sequence("original", 0), prompt = slot_sequence("original", 1);
  const auto total = static_cast<std::int32_t>(decoding.positions.size());
  decoding.done = total - 1;  // only who runs matters
  fails = true;
  // Retried: nothing has been sampled. True: an Error, which says so.
  const auto retried = [&](bool decodes) {
    StepBatch batch = decodes ? build_batch({{&decoding, 1}, {&prompt, 5}}, rig.spec())
                              : build_batch({{&prompt, 5}}, rig.spec());
    if (decodes) {
      for (std::int32_t row = 0; row < batch.num_rows(); ++row) {
        const auto sequence = batch.sequence[static_cast<std::size_t>(row)];
        if (batch.context_length[static_cast<std::size_t>(sequence)] == total) {
          batch.logit_rows.push_back(row);
        }
      }
      batch.sampler_rows.push_back(2);
    }
    StepOutput output;
    output.last_columns = tail.last.data();
    tail.runs = 0;
    try {
      rig.engine().forward(batch, output);
    } catch (const Error& error) {
      EXPECT_EQ(tail.runs, 0);
      return true;
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()), "[plan] no memory");
      EXPECT_EQ(tail.runs, 1);
    }
    return false;
  };
  EXPECT(retried(false));
  EXPECT(!retried(true));
}

TEST("tensorrt: columns fed back on the device equal to columns given by the host") {
  PlanRig rig(folder("original"));
  const Logits expected = native_logits("original");
  const auto books = static_cast<std::size_t>(rig.spec().num_codebooks);
  std::vector<std::int32_t> last(4 * books, -1);
  Sequence sequence = slot_sequence("original", 3);
  Logits got;
  while (sequence.done < static_cast<std::int32_t>(sequence.positions.size())) {
    Position& position = sequence.positions[static_cast<std::size_t>(sequence.done)];
    if (position.is_audio()) {
      std::copy(position.column.begin(), position.column.end(),
                last.begin() + static_cast<std::ptrdiff_t>(2 * books));
      position.column.clear();
      position.feedback = 2;
    }
    const Logits part = step(rig.engine(), {{&sequence, 1}}, last.data()).front();
    got.insert(got.end(), part.begin(), part.end());
  }
  EXPECT(got == expected);
}

TEST("tensorrt: contexts, shapes and addresses are set when the plan is loaded") {
  PlanRig model(folder("original"));
  EXPECT(model.use->context_profiles == (std::vector<std::int32_t>{0, 1, 1, 1}));
  EXPECT_EQ(model.use->enqueues, 3);  // each bucket once
  const Logits expected = native_logits("original");
  Sequence sequence = slot_sequence("original", 1);
  const auto total = static_cast<std::int32_t>(sequence.positions.size());
  feed(model.engine(), sequence, {total - 4, 2});  // the prompt, and nothing that decodes
  sequence.done = total - 2;
  step(model.engine(), {{&sequence, 1}});
  const std::int64_t shapes = model.use->shapes_set;
  const std::int64_t addresses = model.use->addresses_set;
  const std::int64_t copies = model.device.copies;
  const std::int64_t allocations = model.device.allocations;
  const Logits last = step(model.engine(), {{&sequence, 1}}).front();
  EXPECT(std::equal(last.begin(), last.end(),
                    expected.end() - static_cast<std::ptrdiff_t>(last.size())));
  EXPECT_EQ(model.use->shapes_set, shapes);
  EXPECT_EQ(model.use->addresses_set, addresses);
  EXPECT_EQ(model.device.copies, copies + 1);  // of everything that the call needs
  EXPECT_EQ(model.device.allocations, allocations);
  EXPECT(model.use->runs.back() == (std::vector<std::int64_t>{1, 2, 1}));
}

TEST("tensorrt: a plan or device that cannot record runs without graphs") {
  const Logits expected = native_logits("transformers");
  for (const bool plan_says_so : {true, false}) {
    FakePlanOptions plan;
    plan.capturable = !plan_says_so;
    PlanRig model(folder("transformers"), 64, plan);
    model.device.capture_works = plan_says_so;
    Sequence sequence = slot_sequence("transformers", 2);
    EXPECT(feed(model.engine(), sequence, {20, 1}) == expected);
    KeptTail tail(model.spec());
    model.engine().attach(tail.tail());
    Sequence other = slot_sequence("transformers", 0);
    other.done = static_cast<std::int32_t>(other.positions.size()) - 1;  // only the tail matters
    step_with_tail(model.engine(), tail, {{&other, 1}});
    EXPECT(model.engine().counts().decode_calls > 5);
    EXPECT_EQ(model.engine().counts().graph_launches, 0);
  }
}

TEST("tensorrt: a step that exceeds the limits is refused and changes nothing") {
  PlanRig model(folder("transformers"));
  Sequence first = slot_sequence("transformers", 0);
  Sequence second = slot_sequence("transformers", 1);
  feed(model.engine(), first, {64});
  feed(model.engine(), second, {64});
  first.done = second.done = 10;
  const StepBatch good = build_batch({{&first, 3}, {&second, 1}}, model.spec());
  const auto refused = [&](auto&& change, const std::string& part) {
    StepBatch batch = good;
    change(batch);
    StepOutput output;
    EXPECT_THROWS(model.engine().forward(batch, output), part);
  };
  refused([](StepBatch& b) { b.ids.assign(65, 0); }, "1..64 rows");
  refused([](StepBatch& b) { b.slot[1] += 1; }, "slot[1]");
  refused(
      [&](StepBatch& b) {
        Sequence same = second;
        same.blocks = {0};
        b = build_batch({{&first, 3}, {&same, 1}}, model.spec());
      },
      "got slot 0 for sequences 0 and 1");
  refused(
      [](StepBatch& b) {
        b.position[1] += 1;
        b.slot[1] += 1;
        b.context_length[0] += 1;
      },
      "expected position 11 next in sequence 0, got 12");
  Sequence fed = slot_sequence("transformers", 0);
  fed.positions.resize(1);
  fed.positions[0] = {};
  fed.positions[0].feedback = 4;
  const std::vector<std::int32_t> last(64, 0);
  EXPECT_THROWS(step(model.engine(), {{&fed, 1}}, last.data()), "sampler row below 4");
  const Logits expected = native_logits("transformers");
  const auto parts = step(model.engine(), {{&first, 3}, {&second, 1}});
  const std::size_t width = parts[1].size();
  EXPECT(std::equal(parts[0].begin(), parts[0].end(),
                    expected.begin() + static_cast<std::ptrdiff_t>(10 * width)));
  EXPECT(std::equal(parts[1].begin(), parts[1].end(),
                    expected.begin() + static_cast<std::ptrdiff_t>(10 * width)));
}
