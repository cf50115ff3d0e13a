// Random schedules over the TensorRT engine give each request the columns that the native engine
// gives it alone.
#include <chrono>
#include <thread>

#include "check.h"
#include "engine/golden.h"
#include "executor/support.h"
#include "tensorrt/plan_rig.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int32_t kPositions = 160;  // of a sequence

// Columns of requests that run one after another on the native engine.
class NativeReference {
 public:
  explicit NativeReference(const std::string& model_dir) : device_(make_cpu_device()), pool_(1) {
    EngineConfig config;
    config.model_dir = model_dir;
    config.max_rows = kPositions;
    config.max_sequences = 1;
    config.max_positions = kPositions;
    config.pack_weights = false;
    loaded_ = load_engine(config, *device_, pool_);
  }

  const EngineSpec& spec() const { return loaded_.engine->spec(); }

  Answer answer(const Request& request) {
    const auto sampler = make_cpu_sampler({1, spec().num_codebooks, spec().codebook_vocab});
    Executor executor(*loaded_.engine, *sampler,
                      {.max_batch = 1, .max_step_tokens = kPositions, .max_sequence = kPositions});
    const auto sink = std::make_shared<CollectingSink>();
    executor.submit(request, sink);
    REQUIRE(sink->wait());
    return sink->answer();
  }

 private:
  std::unique_ptr<Device> device_;
  ThreadPool pool_;
  LoadedEngine loaded_;
};

struct Totals {
  std::int64_t finished = 0, cancelled = 0, preemptions = 0, columns = 0;
  std::int64_t prefills = 0, decodes = 0, graphs = 0, several = 0;
};

// Load, limits and moments from one seed; the interleaving with the step thread differs each time.
class Schedule {
 public:
  Schedule(unsigned seed, const std::string& layout, NativeReference& reference)
      : random_(seed), reference_(reference) {
    const std::int32_t count = draw(random_, 2, 7);
    for (std::int32_t i = 0; i < count; ++i) {
      Client client;
      client.request = random_request(random_, reference.spec(), 40);
      if (draw(random_, 0, 3) == 0) client.cancel_at = draw(random_, 0, 30);
      if (draw(random_, 0, 3) == 0) client.sink->pause_at = draw(random_, 1, 20);
      clients_.push_back(std::move(client));
    }
    FolderOptions folder;
    folder.model_dir = golden_model(layout);
    folder.max_batch = draw(random_, 1, 6);
    folder.max_seq_len = kPositions;
    folder.max_prefill = draw(random_, 0, 2) == 0 ? draw(random_, 1, 10) : 64;
    folder.max_prompt_table = draw(random_, 1, 8);
    folder.weights_are_inputs = draw(random_, 0, 1) == 0;
    ExecutorConfig config;
    config.max_batch = folder.max_batch;
    config.max_step_tokens = config.max_batch + draw(random_, 1, 20);
    config.max_sequence = kPositions;
    // As on a GPU two times of three: steps run ahead, and the sampler's work is the engine's tail.
    // With fewer slots than requests, those that wait take the slots of paused ones.
    model_ = std::make_unique<PlanRig>(folder, config.max_step_tokens, FakePlanOptions{},
                                       config.max_batch, draw(random_, 0, 2) != 0,
                                       draw(random_, 1, config.max_batch));
    sampler_ = make_cpu_sampler(
        {config.max_batch, reference.spec().num_codebooks, reference.spec().codebook_vocab});
    executor_ = std::make_unique<Executor>(model_->engine(), *sampler_, config);
  }

  void run(Totals& totals) {
    std::promise<void> all_wait;
    const std::shared_future<void> gate = all_wait.get_future().share();
    const bool together = draw(random_, 0, 1) == 0;
    for (Client& client : clients_) {
      if (together) client.start_behind(gate, *executor_);
      client.id = executor_->submit(client.request, client.sink);
      if (draw(random_, 0, 2) == 0) pause_briefly();
      serve();
    }
    all_wait.set_value();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!serve() && std::chrono::steady_clock::now() < deadline) pause_briefly();
    for (const Client& client : clients_) {
      REQUIRE(client.sink->finished());
      compare(client);
    }
    executor_->shutdown();
    const RuntimeStats stats = executor_->stats();
    EXPECT_EQ(stats.free_blocks, stats.total_blocks);
    const PlanCounts& counts = model_->engine().counts();
    totals.finished += stats.finished;
    totals.cancelled += stats.cancelled;
    totals.preemptions += stats.preemptions;
    totals.columns += stats.columns;
    totals.prefills += counts.prefill_calls;
    totals.decodes += counts.decode_calls;
    totals.graphs += counts.graph_launches;
    for (const auto& run : model_->use->runs) totals.several += run[0] == 1 && run[1] > 1 ? 1 : 0;
  }

 private:
  void compare(const Client& client) {
    const Answer expected = reference_.answer(client.request);
    const Answer actual = client.sink->answer();
    EXPECT_EQ(client.sink->misuse(), "");
    EXPECT_EQ(actual.error, "");
    if (client.cancel_at >= 0 && actual.reason == FinishReason::kCancelled) {
      EXPECT(actual.columns.size() <= expected.columns.size() &&
             std::equal(actual.columns.begin(), actual.columns.end(), expected.columns.begin()));
      return;
    }
    EXPECT_EQ(static_cast<int>(actual.reason), static_cast<int>(expected.reason));
    EXPECT(actual.columns == expected.columns);
  }

  void pause_briefly() {
    std::this_thread::sleep_for(std::chrono::microseconds(draw(random_, 1, 300)));
  }

  // Cancels what is due and lets paused readers read on. True when all have finished.
  bool serve() {
    bool all = true;
    for (Client& client : clients_) {
      if (client.id == 0 || client.sink->finished()) continue;
      all = false;
      if (client.cancel_at >= 0 && client.sink->count() >= client.cancel_at) {
        executor_->cancel(client.id);
      }
      if (client.sink->paused() && draw(random_, 0, 3) == 0) {
        client.sink->set_paused(false);
        executor_->wake();
      }
    }
    return all;
  }

  Random random_;
  NativeReference& reference_;
  std::vector<Client> clients_;
  std::unique_ptr<PlanRig> model_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Executor> executor_;  // before the engine and the sampler go
};

}  // namespace

TEST("tensorrt: random schedules give each request the native engine's columns") {
  Totals totals;
  for (const std::string layout : {"transformers", "original"}) {
    NativeReference reference(golden_model(layout));
    for (unsigned seed = 0; seed < 150; ++seed) {
      const int before = failures();
      Schedule(seed, layout, reference).run(totals);
      if (failures() != before) {
        report(__FILE__, __LINE__, layout + ", schedule " + std::to_string(seed));
      }
    }
  }
  std::cout << "  " << totals.finished << " finished, " << totals.cancelled << " cancelled, "
            << totals.preemptions << " preemptions, " << totals.columns << " columns; "
            << totals.prefills << " prefill and " << totals.decodes << " decode calls, "
            << totals.several << " with several slots, " << totals.graphs << " from graphs\n";
  EXPECT(totals.finished > 900);  // else the schedules test too little
  EXPECT(totals.cancelled > 50);
  EXPECT(totals.preemptions > 5);
  EXPECT(totals.several > 1500);
  EXPECT(totals.graphs > totals.decodes / 3);
}
