#include "engine/tensorrt/step_calls.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "tensorrt";

}  // namespace

void PlanCall::clear() {
  first_slot = slots = positions = 0;
  for (auto* list : {&text_ids, &audio_ids, &columns, &row_index, &position, &text_place,
                     &audio_place, &write_index, &kv_length, &logit_rows, &wanted}) {
    list->clear();
  }
  table_rows.clear();
}

StepCalls::StepCalls(const EngineSpec& spec, CallLimits limits)
    : spec_(spec),
      limits_(std::move(limits)),
      owner_(static_cast<std::size_t>(spec.kv.num_blocks), -1) {}

std::int64_t StepCalls::max_wanted_calls() const {
  return std::int64_t{spec_.max_sequences} + spec_.max_rows / limits_.max_prefill +
         spec_.max_rows / limits_.max_prompt_table;
}

void StepCalls::split(const StepBatch& batch, std::span<const std::int32_t> valid) {
  batch_ = &batch;
  decode_.clear();
  num_prefills_ = 0;
  places_.assign(batch.ids.size(), Place{});
  check_sequences();
  add_decode(valid);
  for (std::int32_t s = 0; s < batch.num_sequences; ++s) {
    if (!is_decode(s) && rows_of(s).count() != 0) add_prefill(slot_of(s), rows_of(s));
  }
  add_logit_rows();
}

StepCalls::Rows StepCalls::rows_of(std::int32_t sequence) const {
  const auto s = static_cast<std::size_t>(sequence);
  return {batch_->text_offset[s], batch_->text_offset[s + 1], batch_->audio_offset[s],
          batch_->audio_offset[s + 1]};
}

// A slot is a block, and a sequence has one.
std::int32_t StepCalls::slot_of(std::int32_t sequence) const {
  return batch_->block_table[static_cast<std::size_t>(sequence) *
                             static_cast<std::size_t>(batch_->max_blocks)];
}

std::int32_t StepCalls::position_of(std::int32_t row) const {
  return batch_->position[static_cast<std::size_t>(row)];
}

// Whether the row of the least position is an audio row.
bool StepCalls::audio_is_next(const Rows& rows) const {
  if (rows.text == rows.text_end) return true;
  return rows.audio != rows.audio_end && position_of(rows.audio) < position_of(rows.text);
}

bool StepCalls::is_decode(std::int32_t sequence) const {
  const Rows rows = rows_of(sequence);
  return rows.text == rows.text_end && rows.audio_end - rows.audio == 1;
}

void StepCalls::check_sequences() {
  std::fill(owner_.begin(), owner_.end(), -1);
  for (std::int32_t s = 0; s < batch_->num_sequences; ++s) {
    Rows rows = rows_of(s);
    if (rows.count() == 0) continue;
    std::int32_t& owner = owner_[static_cast<std::size_t>(slot_of(s))];
    check(owner < 0, kWhere, "expected a KV slot for each sequence, got slot ", slot_of(s),
          " for sequences ", owner, " and ", s);
    owner = s;
    std::int32_t next = -1;
    while (rows.count() != 0) {
      const std::int32_t got = position_of(audio_is_next(rows) ? rows.audio++ : rows.text++);
      check(next < 0 || got == next, kWhere, "expected position ", next, " next in sequence ", s,
            ", got ", got);
      next = got + 1;
    }
  }
}

void StepCalls::add_decode(std::span<const std::int32_t> valid) {
  std::int32_t highest = -1;
  for (std::int32_t s = 0; s < batch_->num_sequences; ++s) {
    if (is_decode(s)) highest = std::max(highest, slot_of(s));
  }
  if (highest < 0) return;
  const std::int32_t slots =
      *std::upper_bound(limits_.buckets.begin(), limits_.buckets.end(), highest);
  fill_padding(decode_, slots, valid);
  for (std::int32_t s = 0; s < batch_->num_sequences; ++s) {
    if (is_decode(s)) add_decode_row(rows_of(s).audio, slot_of(s));
  }
}

// Row b is slot b's: of a column that nothing refers to, seen from position 0.
void StepCalls::fill_padding(PlanCall& call, std::int32_t slots,
                             std::span<const std::int32_t> valid) const {
  const auto count = static_cast<std::size_t>(slots);
  call.slots = slots;
  call.positions = 1;
  call.audio_ids.assign(count, 0);
  call.position.assign(count, 0);
  call.kv_length.assign(count, 1);
  for (std::int32_t b = 0; b < slots; ++b) {
    call.row_index.push_back(b);
    call.audio_place.push_back(b);
    // What a slot without a row writes lies behind its own positions. A full slot is at its end and
    // is not read again.
    call.write_index.push_back(
        std::min(valid[static_cast<std::size_t>(b)], spec_.kv.block_tokens - 1));
  }
}

PlanCall StepCalls::padding(std::int32_t slots, std::span<const std::int32_t> valid) const {
  PlanCall call;
  fill_padding(call, slots, valid);
  call.logit_rows.assign(static_cast<std::size_t>(slots), 0);
  return call;
}

void StepCalls::add_decode_row(std::int32_t row, std::int32_t slot) {
  const auto at = static_cast<std::size_t>(slot);
  const std::int32_t position = position_of(row);
  decode_.audio_ids[at] = local_audio_id(decode_, row);
  decode_.position[at] = position;
  decode_.write_index[at] = position;
  decode_.kv_length[at] = position + 1;
  places_[static_cast<std::size_t>(row)] = {-1, slot};
}

void StepCalls::add_prefill(std::int32_t slot, Rows rows) {
  while (rows.count() != 0) rows = add_piece(slot, rows);
}

bool StepCalls::is_table_row(std::int32_t row) const {
  return batch_->ids[static_cast<std::size_t>(row)] >= spec_.text_vocab;
}

// One call with as many of the rows as the limits allow; returns the rest.
StepCalls::Rows StepCalls::add_piece(std::int32_t slot, Rows rows) {
  PlanCall& call = next_prefill();
  const Rows begin = rows;
  fill_piece(call, rows);
  // The plan has at least one text row: one that no position refers to.
  if (call.text_ids.empty()) {
    call.text_ids.push_back(0);
    call.text_place.push_back(0);
  }
  const auto index = static_cast<std::int32_t>(num_prefills_) - 1;
  const auto text = static_cast<std::int32_t>(call.text_ids.size());
  call.row_index.assign(static_cast<std::size_t>(call.positions), 0);
  const auto refer = [&](std::int32_t row, std::int32_t place, std::int32_t flat) {
    call.row_index[static_cast<std::size_t>(place)] = flat;
    places_[static_cast<std::size_t>(row)] = {index, flat};
  };
  for (std::int32_t i = 0; i < rows.text - begin.text; ++i) {
    refer(begin.text + i, call.text_place[static_cast<std::size_t>(i)], i);
  }
  for (std::int32_t i = 0; i < rows.audio - begin.audio; ++i) {
    refer(begin.audio + i, call.audio_place[static_cast<std::size_t>(i)], text + i);
  }
  call.first_slot = slot;
  call.slots = 1;
  call.write_index.push_back(call.position.front());
  call.kv_length.push_back(call.position.back() + 1);
  return rows;
}

// Takes rows off the front of `rows` in order of position.
void StepCalls::fill_piece(PlanCall& call, Rows& rows) {
  std::int32_t tables = 0;
  while (rows.count() != 0 && call.positions < limits_.max_prefill) {
    const bool audio = audio_is_next(rows);
    const std::int32_t row = audio ? rows.audio : rows.text;
    const bool table = !audio && is_table_row(row);
    if (table && tables == limits_.max_prompt_table) return;
    tables += table ? 1 : 0;
    if (audio) {
      call.audio_place.push_back(call.positions);
      call.audio_ids.push_back(local_audio_id(call, rows.audio++));
    } else {
      call.text_place.push_back(call.positions);
      add_text_row(call, rows.text++);
    }
    call.position.push_back(position_of(row));
    ++call.positions;
  }
}

void StepCalls::add_text_row(PlanCall& call, std::int32_t row) {
  const std::int32_t id = batch_->ids[static_cast<std::size_t>(row)];
  if (!is_table_row(row)) return call.text_ids.push_back(id);
  const auto hidden = static_cast<std::size_t>(spec_.hidden_size);
  const auto local = static_cast<std::int32_t>(call.table_rows.size() / hidden);
  call.text_ids.push_back(spec_.text_vocab + local);
  const float* values =
      batch_->table_rows.data() + static_cast<std::size_t>(id - spec_.text_vocab) * hidden;
  call.table_rows.insert(call.table_rows.end(), values, values + hidden);
}

// A column of the host is copied to the call's own; one of the sampler's keeps its id.
std::int32_t StepCalls::local_audio_id(PlanCall& call, std::int32_t row) {
  const std::int32_t id = batch_->ids[static_cast<std::size_t>(row)];
  if (id >= StepBatch::kFeedback) {
    check(id - StepBatch::kFeedback < limits_.max_sampler_rows, kWhere,
          "expected a sampler row below ", limits_.max_sampler_rows, " (max_batch of the plan) in ",
          "ids[", row, "], got ", id - StepBatch::kFeedback);
    return id;
  }
  const auto books = static_cast<std::size_t>(spec_.num_codebooks);
  const auto local = static_cast<std::int32_t>(call.columns.size() / books);
  const std::int32_t* column = batch_->columns.data() + static_cast<std::size_t>(id) * books;
  call.columns.insert(call.columns.end(), column, column + books);
  return local;
}

void StepCalls::add_logit_rows() {
  for (std::size_t i = 0; i < batch_->logit_rows.size(); ++i) {
    const Place place = places_[static_cast<std::size_t>(batch_->logit_rows[i])];
    PlanCall& call = place.call < 0 ? decode_ : prefills_[static_cast<std::size_t>(place.call)];
    call.logit_rows.push_back(place.flat);
    call.wanted.push_back(static_cast<std::int32_t>(i));
    const std::int32_t most = place.call < 0 ? decode_.slots : limits_.max_prefill;
    check(static_cast<std::int32_t>(call.wanted.size()) <= most, kWhere, "expected at most ", most,
          " logit rows of a call, got more (rows repeat)");
  }
  if (decode_.slots != 0) decode_.logit_rows.resize(static_cast<std::size_t>(decode_.slots), 0);
  for (std::size_t c = 0; c < num_prefills_; ++c) {
    if (prefills_[c].logit_rows.empty()) prefills_[c].logit_rows.push_back(0);
  }
}

PlanCall& StepCalls::next_prefill() {
  if (num_prefills_ == prefills_.size()) prefills_.emplace_back();
  PlanCall& call = prefills_[num_prefills_++];
  call.clear();
  return call;
}

}  // namespace higgs_rt
