// Linear statistics: weights times a number of the key, or times a number of the distance. Most blocks of keys lie where
// such a number does not change (outside a span, far beyond a window); there the sum of the block's weights is enough.
#pragma once

#include <vector>

#include "statistics_scores.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::Rows;

// Numbers of the keys.
template <class T> class Features {
  public:
    Features(const Problem &p, const Rows &rows) : values(static_cast<const T *>(rows.features)), stride(rows.feature_batch), count(rows.feature_count), keys(p.keys) {
        if (!count) return;
        blocks = (keys + BLOCK - 1) / BLOCK;
        level.resize(size_t(stride ? p.batch : 1) * blocks * count);
        for (int32_t b = 0; b < (stride ? p.batch : 1); ++b)
            for (int32_t key = 0; key < keys; ++key)
                for (int32_t c = 0; c < count; ++c) {
                    const T *x = values + b * stride + int64_t(key) * count + c;
                    uint8_t &flat = level[place(b, key) + c];
                    flat = key % BLOCK == 0 || (flat && x[0] == x[-count]);
                }
    }

    // w: weights of the block's rows [first, last), of which `whole` is the sum.
    void take(int32_t batch, int32_t block, const Vec<T> *w, int first, int last, Vec<T> whole, Vec<T> *sums) const {
        const T *x = values + batch * stride + int64_t(block) * count;
        const uint8_t *flat = level.data() + place(stride ? batch : 0, block);
        for (int32_t c = 0; c < count; ++c) {
            if (flat[c]) {
                if (x[c] != T(0)) sums[c] += x[c] * whole;
                continue;
            }
            Vec<T> sum{};
            for (int r = first; r < last; ++r) sum += x[int64_t(r) * count + c] * w[r];
            sums[c] += sum;
        }
    }

    // What factors of each lane's query make of the rows' numbers is added to `pull`.
    void spread(int32_t batch, int32_t block, int first, int last, const Vec<T> *factors, Vec<T> *pull) const {
        const T *x = values + batch * stride + int64_t(block) * count;
        const uint8_t *flat = level.data() + place(stride ? batch : 0, block);
        Vec<T> everywhere{};
        for (int32_t c = 0; c < count; ++c) {
            if (flat[c]) everywhere += factors[c] * x[c];
            else
                for (int r = first; r < last; ++r) pull[r] += factors[c] * x[int64_t(r) * count + c];
        }
        for (int r = first; r < last; ++r) pull[r] += everywhere;
    }

    const T *of(int32_t batch, int64_t key) const { return values + batch * stride + key * count; }

  private:
    const T *values;
    int64_t stride;
    int32_t count, keys, blocks = 0;
    std::vector<uint8_t> level; // [batch, block, feature]: whether all keys of the block have the same number

    size_t place(int32_t b, int32_t key) const { return (size_t(b) * blocks + key / BLOCK) * count; }
};

// Numbers of the distance from key to query.
template <class T> class Tables {
  public:
    explicit Tables(const Rows &rows) : tables(size_t(rows.table_count)), width(rows.distances + 2 * MARGIN), first(rows.first) {
        values.resize(tables.size() * width);
        const T *from = static_cast<const T *>(rows.tables);
        for (size_t f = 0; f < tables.size(); ++f, from += rows.distances) {
            Table &t = tables[f];
            t.low = from[0];
            t.high = from[rows.distances - 1];
            int32_t rise = 0, end = rows.distances;
            while (rise < rows.distances && from[rise] == t.low) ++rise;
            while (end > 0 && from[end - 1] == t.high) --end;
            t.last_low = rise == rows.distances ? std::numeric_limits<int64_t>::max() : int64_t(first) + rise - 1;
            t.first_high = int64_t(first) + end;
            T *to = values.data() + f * width;
            std::fill_n(to, MARGIN, t.low);
            std::copy_n(from, rows.distances, to + MARGIN);
            std::fill_n(to + MARGIN + rows.distances, MARGIN, t.high);
        }
        reversed.assign(values.rbegin(), values.rend());
    }

    // `lead`: distance of the first lane to the first row of the block; lanes go up, rows go down.
    void take(int64_t lead, const Vec<T> *w, int begin, int end, Vec<T> whole, Vec<T> *sums) const {
        const int64_t nearest = lead - (end - 1), farthest = lead + Lanes<T>::N - 1 - begin;
        for (size_t f = 0; f < tables.size(); ++f) {
            const Table &t = tables[f];
            if (farthest <= t.last_low) {
                sums[f] += t.low * whole;
            } else if (nearest >= t.first_high) {
                sums[f] += t.high * whole;
            } else {
                const T *at = values.data() + f * width + MARGIN + (lead - first);
                Vec<T> sum{};
                for (int r = begin; r < end; ++r) sum += unaligned_load<T>(at - r) * w[r];
                sums[f] += sum;
            }
        }
    }

    // What factors of each lane's query make of the distances is added to `pull`.
    void spread(int64_t lead, int begin, int end, const Vec<T> *factors, Vec<T> *pull) const {
        const int64_t nearest = lead - (end - 1), farthest = lead + Lanes<T>::N - 1 - begin;
        Vec<T> everywhere{};
        for (size_t f = 0; f < tables.size(); ++f) {
            const Table &t = tables[f];
            if (farthest <= t.last_low) everywhere += factors[f] * t.low;
            else if (nearest >= t.first_high) everywhere += factors[f] * t.high;
            else
                for (int r = begin; r < end; ++r) pull[r] += factors[f] * unaligned_load<T>(values.data() + f * width + MARGIN + (lead - first) - r);
        }
        for (int r = begin; r < end; ++r) pull[r] += everywhere;
    }

    // The same for one query and lanes of keys: the first lane is at distance `lead`, the others are nearer.
    void spread_back(int64_t lead, const T *factors, Vec<T> &pull) const {
        for (size_t f = 0; f < tables.size(); ++f) {
            const Table &t = tables[f];
            if (lead <= t.last_low) pull += factors[f] * t.low;
            else if (lead - (Lanes<T>::N - 1) >= t.first_high) pull += factors[f] * t.high;
            else pull += factors[f] * unaligned_load<T>(reversed.data() + (tables.size() - f) * width - 1 - (MARGIN + lead - first));
        }
    }

  private:
    static constexpr int MARGIN = BLOCK + Lanes<T>::N; // a block that is not all at one end reaches no farther than this
    struct Table {
        T low, high;                  // what it is at the two ends
        int64_t last_low, first_high; // distances up to which, and from which on, it is that
    };
    std::vector<Table> tables;
    std::vector<T> values, reversed; // with margins
    int64_t width;
    int32_t first;
};

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
