#include "backends/block/qcow2/qcow2_disk.h"

#include <atomic>
#include <optional>

#include "backends/block/request_check.h"

namespace tessera::block::qcow2 {

// One request as parts that lie in one piece in the file each. Deletes itself when the last part is done.
class Qcow2Disk::Direct {
public:
    Direct(Image& image, BlockRequest& request, const Image::Plan& plan)
        : image_(image), request_(request), epoch_(plan.epoch) {
        PieceWalk walk(request.buffers);
        u64 parts = 0;
        for (const Image::Segment& segment : plan.segments) parts += segment.zero ? 0 : 1;
        parts_.reserve(parts);
        for (const Image::Segment& segment : plan.segments) {
            if (segment.zero) {
                walk.fill_zero(segment.length);
                continue;
            }
            Part& part = parts_.emplace_back(std::make_unique<Part>(*this)).operator*();
            part.operation = request.operation;
            part.offset = segment.host;
            part.length = segment.length;
            (void)walk.take(segment.length, part.pieces);
            part.buffers = part.pieces;
        }
        left_ = parts_.size() + 1;
    }
    // Lives until its last part is done, and begun() was called.
    static void start(std::unique_ptr<Direct> direct, std::vector<BlockRequest*>& parts,
                      std::vector<Direct*>& begun) {
        for (const auto& part : direct->parts_) parts.push_back(part.get());
        begun.push_back(direct.release());
    }
    void begun() { ended(BlockStatus::Ok); }

private:
    class Part final : public BlockRequest {
    public:
        explicit Part(Direct& whole) : whole_(whole) {}
        void done(BlockStatus status) override { whole_.ended(status); }
        std::vector<iovec> pieces;

    private:
        Direct& whole_;
    };

    void ended(BlockStatus status) {
        if (status != BlockStatus::Ok) status_.store(status);
        if (left_.fetch_sub(1) != 1) return;
        const std::unique_ptr<Direct> self(this);
        image_.ended(epoch_);
        request_.done(status_.load());
    }

    Image& image_;
    BlockRequest& request_;
    const u64 epoch_;
    std::vector<std::unique_ptr<Part>> parts_;
    std::atomic<u64> left_ = 0;
    std::atomic<BlockStatus> status_ = BlockStatus::Ok;
};

Qcow2Disk::Qcow2Disk(std::unique_ptr<BlockLog> log, std::unique_ptr<Image> image, DiskSettings settings)
    : log_(std::move(log)), image_(std::move(image)), settings_(std::move(settings)), pool_(kThreads) {
    info_.size = image_->size();
    info_.physical_block = settings_.physical_block;
    info_.optimal_io = static_cast<u32>(image_->header().geometry.cluster());
    info_.discard_granularity = settings_.read_only ? 0 : image_->header().geometry.cluster();
    info_.can_write_zeroes = !settings_.read_only;
    info_.read_only = settings_.read_only;
    info_.name = settings_.name;
}

std::unique_ptr<Qcow2Disk::Direct> Qcow2Disk::direct(BlockRequest& request) {
    const bool is_write = request.operation == BlockOperation::Write;
    if (request.operation != BlockOperation::Read && !is_write) return nullptr;
    if (is_write && (request.force_unit_access || settings_.write_through)) return nullptr;
    Image::Plan plan;
    if (!image_->plan(is_write ? Image::Way::Write : Image::Way::Read, request.offset, request.length, plan))
        return nullptr;
    return std::make_unique<Direct>(*image_, request, plan);
}

void Qcow2Disk::submit(std::span<BlockRequest* const> requests) {
    std::vector<BlockRequest*> for_threads;
    std::vector<BlockRequest*> parts;
    std::vector<Direct*> begun;
    for (BlockRequest* request : requests) {
        if (!is_in_range(info_, *request))
            request->done(BlockStatus::OutOfRange);
        else if (request->operation != BlockOperation::Flush && request->length == 0)
            request->done(BlockStatus::Ok);
        else if (auto started = direct(*request))
            Direct::start(std::move(started), parts, begun);
        else
            for_threads.push_back(request);
    }
    pool_.post(*this, for_threads);
    image_->file().submit(parts);
    for (Direct* const one : begun) one->begun();
}

void Qcow2Disk::handle(BlockRequest& request) {
    request.done(perform(request));
}

BlockStatus Qcow2Disk::perform(const BlockRequest& request) {
    BlockStatus status = BlockStatus::Unsupported;
    switch (request.operation) {
        case BlockOperation::Read: return image_->read(request.offset, request.buffers);
        case BlockOperation::Flush: return image_->flush();
        case BlockOperation::Discard: status = image_->discard(request.offset, request.length); break;
        case BlockOperation::WriteZeroes:
            status = image_->write_zeroes(request.offset, request.length, request.may_unmap);
            break;
        case BlockOperation::Write: status = image_->write(request.offset, request.buffers); break;
    }
    if (status == BlockStatus::Ok && (request.force_unit_access || settings_.write_through))
        return image_->flush();
    return status;
}

}  // namespace tessera::block::qcow2
