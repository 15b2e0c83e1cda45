// The thread pool under ThreadSanitizer: `race pool` must be clean, `race judge` must be reported.
//
// Python is left out on purpose: its own threads and locks would need a sanitized interpreter.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "pool.h"

using grilly::Pool;

namespace {

constexpr int kCallers = 3, kJobs = 6'000;
constexpr std::uint32_t kMost = 64;

std::uint32_t chunks_of(int caller, int job) { return 1 + static_cast<std::uint32_t>(job * 7 + caller) % kMost; }

// Every caller's jobs write to memory without locks: what orders one job's writes before the next job's is the pool.
bool callers_share_a_pool() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller)
    callers.emplace_back([caller, &wrong] {
      std::vector<long> done(kMost), want(kMost);
      for (int job = 0; job < kJobs; ++job) {
        const std::uint32_t chunks = chunks_of(caller, job);
        Pool::of(kCallers).run(
            {.work = [](void* to, std::uint64_t chunk) { ++(*static_cast<std::vector<long>*>(to))[chunk]; },
             .context = &done,
             .chunks = chunks,
             .backwards = job % 2 == 0,
             .worth_waking = job % 3 != 0});
        for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) ++want[chunk];
      }
      wrong += done != want;
    });
  for (std::thread& caller : callers) caller.join();
  return wrong == 0;
}

// More chunks than can be claimed one by one.
bool many_chunks_are_done_once() {
  std::vector<unsigned char> done(2'500'000);
  Pool::of(kCallers).run(
      {.work = [](void* to, std::uint64_t chunk) { ++(*static_cast<std::vector<unsigned char>*>(to))[chunk]; },
       .context = &done,
       .chunks = done.size(),
       .backwards = true,
       .worth_waking = true});
  return std::all_of(done.begin(), done.end(), [](unsigned char times) { return times == 1; });
}

// Two threads, one counter, no order between them.
long counted_at_once() {
  long count = 0;
  const auto add = [&count] {
    for (int i = 0; i < 100'000; ++i) ++count;
  };
  std::thread other(add);
  add();
  other.join();
  return count;
}

}  // namespace

int main(int arguments, char** argument) {
  if (arguments == 2 && std::strcmp(argument[1], "judge") == 0) return counted_at_once() == 0;
  const bool right = callers_share_a_pool() && many_chunks_are_done_once();
  std::printf("%d jobs of %d callers: %s\n", kCallers * kJobs, kCallers, right ? "every chunk done once" : "WRONG");
  return right ? 0 : 1;
}
