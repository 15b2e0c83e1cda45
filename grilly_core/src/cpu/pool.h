// A small thread pool for loops over memory.
//
// Chunks are claimed one by one through a single 64-bit ticket, and the caller starts on them at once: a static split
// lets both sides fall asleep in turn. Workers spin for some microseconds after a job and then sleep, so that a program
// that does other work between steps is not disturbed.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace grilly {

class Pool {
 public:
  using Work = void (*)(void* context, std::uint32_t chunk);

  // The pool with that many threads, the caller's included. Pools live to the end of the process; a forked child gets
  // its own.
  static Pool& of(unsigned threads);

  // Calls work(context, chunk) for every chunk below `chunks`, and returns when all are done. When the pool is busy
  // with another thread's job the caller does its job alone.
  void run(Work work, void* context, std::uint32_t chunks);

 private:
  explicit Pool(unsigned threads);
  void serve();
  bool claim(std::uint32_t generation, std::uint32_t& chunk);

  std::mutex busy_;
  std::uint32_t generation_ = 0;
  alignas(64) std::atomic<std::uint64_t> ticket_{0};  // generation << 32 | chunks not yet claimed
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};  // the generation, for sleepers
  std::atomic<Work> work_{nullptr};
  std::atomic<void*> context_{nullptr};
};

}  // namespace grilly
