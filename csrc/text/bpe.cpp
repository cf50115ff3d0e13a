#include "text/bpe.h"

#include <queue>
#include <tuple>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// A token in a doubly linked list; id -1: it was joined to the one before.
struct Node {
  std::int32_t id = 0;
  std::size_t before = kNone;
  std::size_t after = kNone;
};

struct Candidate {
  std::int32_t rank = 0;
  std::size_t left = 0;
  std::uint64_t key = 0;  // of the two ids when it was found
  bool operator>(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, Merges merges, bool whole_first)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), whole_first_(whole_first) {
  for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto found = vocabulary_.find(std::string(1, static_cast<char>(byte)));
    check(found != vocabulary_.end(), "vocab", "expected a token of byte ", byte, ", got none");
    byte_ids_[byte] = found->second;
  }
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (whole_first_) {
    const auto whole = vocabulary_.find(std::string(piece));
    if (whole != vocabulary_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  merge(piece, ids);
}

void Bpe::merge(std::string_view piece, std::vector<std::int32_t>& ids) const {
  std::vector<Node> nodes(piece.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](std::size_t left) {
    if (left == kNone || nodes[left].after == kNone) return;
    const std::uint64_t key = pair_key(nodes[left].id, nodes[nodes[left].after].id);
    const auto found = merges_.find(key);
    if (found != merges_.end()) queue.push({found->second.rank, left, key});
  };
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    nodes[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? kNone : i - 1,
                i + 1 == nodes.size() ? kNone : i + 1};
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = nodes[best.left];
    // Stale: one of the two has been joined with another since.
    if (left.id < 0 || left.after == kNone) continue;
    Node& right = nodes[left.after];
    if (pair_key(left.id, right.id) != best.key) continue;
    left.id = merges_.at(best.key).id;
    right.id = -1;
    left.after = right.after;
    if (left.after != kNone) nodes[left.after].before = best.left;
    offer(left.before);
    offer(best.left);
  }
  for (const Node& node : nodes) {
    if (node.id >= 0) ids.push_back(node.id);
  }
}

}  // namespace higgs_rt
