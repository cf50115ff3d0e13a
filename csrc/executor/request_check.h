// What a request must satisfy before it is queued.
#pragma once

#include "engine/engine.h"
#include "executor/executor.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

// Throws kInvalidArgument that names field, value and limit when the limits of the executor, the
// engine and the sampler do not fit together.
void check_config(const ExecutorConfig& config, const EngineSpec& spec);

// Throws kInvalidArgument that names field, value and limit. A request that passes can always be
// run to its max_columns, alone at worst.
void check_request(const Request& request, const ExecutorConfig& config, const EngineSpec& spec);

// The index of an adapter by its name (EngineSpec::adapters); -1 for the empty name. Throws
// kInvalidArgument that names it and what is known.
std::int32_t adapter_index(const std::string& name, const EngineSpec& spec);

}  // namespace higgs_rt
