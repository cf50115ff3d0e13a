#include "executor/executor.h"

#include <mutex>
#include <thread>
#include <utility>

#include "core/check.h"
#include "executor/mailbox.h"
#include "executor/request_check.h"
#include "executor/step_loop.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"

namespace higgs_rt {
namespace {

ExecutorConfig checked(const ExecutorConfig& config, const EngineSpec& spec) {
  check_config(config, spec);
  return config;
}

std::int32_t cached_blocks(const ExecutorConfig& config, const EngineSpec& spec) {
  if (!spec.shared_blocks) return 0;
  return static_cast<std::int32_t>(config.prefix_cache * spec.kv.num_blocks);
}

}  // namespace

struct Executor::Impl {
  Impl(Engine& engine, Sampler& sampler, const ExecutorConfig& the_config,
       std::function<void()> after_step)
      : config(checked(the_config, engine.spec())),
        spec(engine.spec()),
        pool(spec.kv.num_blocks),
        cache(pool, cached_blocks(config, spec)),
        mailbox(config.max_queue, spec.kv.num_blocks),
        loop(engine, sampler, config, mailbox, pool, cache, std::move(after_step)),
        thread([this] { loop.run(); }) {}

  const ExecutorConfig config;
  const EngineSpec spec;
  BlockPool pool;
  PrefixCache cache;
  Mailbox mailbox;
  StepLoop loop;
  std::mutex join_mutex;
  std::thread thread;  // last: it uses all of the above
};

Executor::Executor(Engine& engine, Sampler& sampler, const ExecutorConfig& config,
                   std::function<void()> after_step)
    : impl_(std::make_unique<Impl>(engine, sampler, config, std::move(after_step))) {}

Executor::~Executor() { shutdown(); }

std::uint64_t Executor::submit(const Request& request, std::shared_ptr<ColumnSink> sink) {
  try {
    check(sink != nullptr, "submit", "sink: expected a receiver, got none");
    check_request(request, impl_->config, impl_->spec);
  } catch (const Error&) {
    impl_->mailbox.count_refusal();
    throw;
  }
  auto sequence = std::make_unique<Sequence>(request, std::move(sink), impl_->spec, impl_->pool);
  if (impl_->cache.enabled()) sequence->make_keys(impl_->cache.hasher());
  return impl_->mailbox.push(std::move(sequence));
}

void Executor::cancel(std::uint64_t id) { impl_->mailbox.cancel(id); }

void Executor::wake() { impl_->mailbox.wake(); }

RuntimeStats Executor::stats() const { return impl_->mailbox.stats(); }

void Executor::shutdown() {
  impl_->mailbox.stop();
  const std::scoped_lock lock(impl_->join_mutex);
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace higgs_rt
