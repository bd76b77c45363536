"""Video: read to the letter, judged, averaged, divided."""

import math
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deblur_lab.data.video.averaging import LightCurve, average_in_light, average_stored
from deblur_lab.data.video.clips import divided, files_in
from deblur_lab.data.video.files import Video, VideoFrame, frames, scaled_down, video
from deblur_lab.data.video.footage import Choice, Windows
from deblur_lab.errors import ConfigurationError, DataError, MachineError
from tests.data.films import SIZE_PX, pan, view, write_film

# Averages


@pytest.mark.parametrize("count", [1, 3, 11, 301])
def test_the_average_of_stored_values_is_the_exact_mean_rounded_once(count):
    pictures = np.random.default_rng(count).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    pictures[:, 0, 0] = 255
    expected = [
        math.floor(Fraction(sum(map(int, values)), count) + Fraction(1, 2))
        for values in pictures.reshape(count, -1).T
    ]
    average = average_stored(list(pictures))
    assert average.dtype == np.uint8
    assert average.ravel().tolist() == expected


@pytest.mark.parametrize("gamma", [2.2, 1.0, "srgb"])
def test_the_average_in_light_is_that_of_doubles_value_by_value(gamma):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 16, 20, 3), dtype=np.uint8)
    pictures[:, :8] //= 12  # the linear part of sRGB's curve is at its dark end

    def light(value):
        if gamma != "srgb":
            return (value / 255) ** gamma
        value /= 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    def stored(value):
        if gamma != "srgb":
            return value ** (1 / gamma)
        return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055

    expected = [
        round(255 * stored(math.fsum(light(int(value)) for value in values) / 7))
        for values in pictures.reshape(7, -1).T
    ]
    assert average_in_light(list(pictures), LightCurve(gamma)).ravel().tolist() == expected


def test_the_average_of_equal_frames_is_the_frame():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    for gamma in (2.2, "srgb"):
        assert (average_in_light([ramp] * 5, LightCurve(gamma)) == ramp).all()
    assert (average_stored([ramp] * 5) == ramp).all()


def test_light_is_averaged_brighter_than_stored_values():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert average_stored([black, white, black]).max() == 85
    assert average_in_light([black, white, black], LightCurve()).min() == round(255 * (1 / 3) ** (1 / 2.2))


def test_a_gamma_that_is_not_positive_is_refused():
    with pytest.raises(ConfigurationError, match=r"gamma=0: more than 0, or srgb"):
        LightCurve(0)


# Reading


def test_lossless_video_is_read_pixel_by_pixel_in_its_time(tmp_path):
    pictures = pan(9)
    found = video(write_film(tmp_path / "a.mkv", pictures))
    assert (found.width_px, found.height_px) == SIZE_PX
    assert (found.frames, found.codec, found.notes) == (9, "ffv1", ())
    assert found.rate_fps == pytest.approx(240, rel=0.02)  # of a container that counts milliseconds
    read = list(frames(found))
    assert [frame.number for frame in read] == list(range(9))
    assert [frame.time_s for frame in read] == pytest.approx([n / 240 for n in range(9)], abs=0.001)
    for frame, picture in zip(read, pictures, strict=True):
        np.testing.assert_array_equal(frame.picture, picture)


def test_a_part_is_read_with_the_numbers_of_the_whole(tmp_path):
    pictures = pan(60)
    options = {"crf": "10", "g": "7", "bf": "3"}  # frames that are stored in another order than shown
    path = write_film(
        tmp_path / "a.mp4", pictures, codec="libx264", pixels="yuv444p", rate=30, options=options
    )
    whole = {frame.number: frame for frame in frames(video(path))}
    part = list(frames(video(path), 0.5, 1.0))
    assert [frame.number for frame in part] == list(range(15, 30))
    for frame in part:
        assert frame.time_s == whole[frame.number].time_s
        np.testing.assert_array_equal(frame.picture, whole[frame.number].picture)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1, -1, 0), 3),  # as phones that are held upright store it: turned clockwise when shown
        ((-1, 0, 0, -1), 2),
        ((0, -1, 1, 0), 1),
    ],
)
def test_a_clip_that_is_to_be_turned_is_turned(tmp_path, matrix, turns):
    path = write_film(tmp_path / "a.mp4", pan(3), codec="libx264", pixels="yuv444p")
    stored = next(frames(video(path))).picture
    contents = bytearray(path.read_bytes())
    place = contents.find(b"tkhd") + 44  # the matrix of the track's header
    a, b, c, d = (65536 * one for one in matrix)
    contents[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(contents)
    np.testing.assert_array_equal(next(frames(video(path))).picture, np.rot90(stored, turns))


@pytest.mark.parametrize(("width", "height", "matrix"), [(160, 96, "ITU601"), (1280, 720, "ITU709")])
def test_a_matrix_that_is_not_named_is_that_of_the_size(tmp_path, width, height, matrix):
    from av.video.reformatter import Colorspace

    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = (200, 60, 90)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=getattr(Colorspace, matrix))
        frame.colorspace = 2  # not named
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        assert next(file.decode(video=0)).colorspace == 2
    assert abs(next(frames(video(path))).picture.astype(int) - picture).max() <= 2


def test_full_range_and_ten_bits_are_read_as_what_they_are(tmp_path):
    picture = pan(1)[0]
    full = write_film(tmp_path / "a.avi", [picture] * 3, codec="mjpeg", pixels="yuvj444p", options={"q": "2"})
    options = {"x265-params": "log-level=none:lossless=1"}
    ten = write_film(
        tmp_path / "b.mp4", [picture] * 3, codec="libx265", pixels="yuv444p10le", options=options
    )
    for path in (full, ten):
        assert abs(next(frames(video(path))).picture.astype(int) - picture).mean() < 3


def broken(path: Path, kind: str) -> Path:
    """A file that is wrong in one way."""
    lossy = {"codec": "libx264", "pixels": "yuv420p"}
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video " * 99)
    elif kind == "a picture":
        path.write_bytes((Path(__file__).parents[2] / "docs" / "demo.jpg").read_bytes())
    elif kind == "sound":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=44100)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.rate = 44100
            file.mux([*stream.encode(silence), *stream.encode()])
    elif kind == "HLG":
        options = {"x265-params": "log-level=none:transfer=arib-std-b67"}
        write_film(path, pan(3), codec="libx265", pixels="yuv420p10le", options=options)
    elif kind == "interlaced":
        write_film(path, pan(3), **lossy, options={"x264-params": "interlaced=1:tff=1"})
    elif kind in ("without its end", "without its index"):
        container = {"movflags": "faststart"} if kind == "without its end" else {}
        contents = write_film(path, pan(40), **lossy, container=container).read_bytes()
        path.write_bytes(contents[: len(contents) * 2 // 3])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file"),
        ("empty", "the file is empty (0 bytes)"),
        ("text", "cannot be read as a video (Invalid data"),
        ("a picture", "there is no video in it"),
        ("sound", "there is no video in it"),
        ("HLG", "of high dynamic range (HLG or PQ)"),
        ("interlaced", "interlaced: each frame is two halves in time"),
        ("without its end", "the file is damaged or truncated after"),
        ("without its index", "cannot be read as a video (Invalid data"),
    ],
)
def test_what_is_no_usable_video_is_told_in_one_line(tmp_path, kind, message):
    path = broken(tmp_path / "a b.mp4", kind)
    with pytest.raises(DataError) as caught:
        video(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert message in told
    assert "\n" not in told


def test_without_pyav_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = write_film(tmp_path / "a.mkv", pan(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MachineError, match=r"reading video needs the package av \(pip install av\)"):
        video(path)


def test_a_file_that_ends_before_its_header_says_so_is_noted(tmp_path):
    path = write_film(tmp_path / "a.mkv", pan(75), rate=25)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (note,) = video(path).notes
    assert "of the 3.0 s that its header states: perhaps truncated" in note


def test_damage_within_a_file_is_met_where_it_is(tmp_path):
    options = {"crf": "18", "g": "10"}
    path = write_film(tmp_path / "a.mp4", pan(60), codec="libx264", pixels="yuv420p", options=options)
    contents = bytearray(path.read_bytes())
    start = contents.find(b"mdat")
    half = start + int.from_bytes(contents[start - 4 : start], "big") // 2
    contents[half : half + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(contents)
    with pytest.raises(DataError, match=r"a\.mp4: (damaged behind frame \d+|frame \d+, .* is damaged)"):
        list(frames(video(path)))


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((1080, 1920), (1280, 720), (720, 1280)),
        ((1920, 1080), (1280, 720), (1280, 720)),  # a clip that stands
        ((480, 640), (1280, 720), (480, 640)),
        ((1000, 1000), (1280, 720), (720, 720)),
        ((96, 160), None, (96, 160)),
    ],
)
def test_pictures_are_scaled_down_to_fit_and_never_up(size, box, expected):
    assert scaled_down(np.zeros((*size, 3), np.uint8), box).shape == (*expected, 3)


def test_scaling_down_takes_the_mean_of_areas():
    picture = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    areas = picture.reshape(48, 2, 80, 2, 3).mean((1, 3))
    assert abs(scaled_down(picture, (80, 48)) - areas).max() <= 0.5


# Which frames make a pair


def windows_of(pictures, choice=None, *, counts=(5,), times=None, span=(0.0, float("inf"))):
    """The windows of pictures in a row, as the numbers of their frames, and who found them."""
    drawn = iter([*counts, *[counts[-1]] * len(pictures)])
    finder = Windows(choice or Choice(), lambda: next(drawn), 1.0, *span)
    times = range(len(pictures)) if times is None else times
    found = [
        window
        for number, (time, picture) in enumerate(zip(times, pictures, strict=True))
        for window in finder.feed(VideoFrame(number, float(time), picture))
    ]
    return [[frame.number for frame in window.frames] for window in found], finder, found


def in_rows(first, length=5):
    return list(range(first, first + length))


def test_frames_are_used_once_and_the_middle_one_is_sharp():
    numbers, finder, found = windows_of(pan(17))
    assert numbers == [in_rows(0), in_rows(5), in_rows(10)]
    assert [window.middle.number for window in found] == [2, 7, 12]
    assert (finder.found, finder.left_out, finder.breaks) == (3, {}, {})


@pytest.mark.parametrize(("stride", "firsts"), [(2, range(0, 12, 2)), (7, (0, 7)), (5, (0, 5, 10))])
def test_windows_begin_a_stride_apart(stride, firsts):
    numbers, _, _ = windows_of(pan(16), Choice(stride=stride))
    assert numbers == [in_rows(first) for first in firsts]


def test_windows_may_differ_in_length():
    numbers, _, _ = windows_of(pan(20), counts=(3, 7, 5))
    assert numbers == [in_rows(0, 3), in_rows(3, 7), in_rows(10), in_rows(15)]


def test_windows_may_differ_in_length_and_overlap():
    numbers, _, _ = windows_of(pan(12), Choice(stride=2), counts=(7, 3, 5))
    assert numbers == [in_rows(0, 7), in_rows(2, 3), in_rows(4), in_rows(6)]


@pytest.mark.parametrize("step_px", [0.8, 2.0, 4.5])
def test_motion_is_told_in_pixels(step_px):
    _, _, found = windows_of(pan(10, step_px), counts=(5,))
    for window in found:
        assert window.step_px == pytest.approx(step_px, rel=0.15, abs=0.2)
        assert window.motion_px == pytest.approx(4 * step_px, rel=0.15)


def test_motion_is_told_in_pixels_of_a_large_picture():
    large = [np.kron(picture, np.ones((8, 8, 1), np.uint8)) for picture in pan(5, 1.0)]
    _, _, (window,) = windows_of(large)
    assert window.motion_px == pytest.approx(32, rel=0.15)


@pytest.mark.parametrize("other", [pan(12, photo="coffee", start=150), [view(300, 200)] * 12])
def test_nothing_is_averaged_across_a_cut(other):
    numbers, finder, _ = windows_of([*pan(12), *other])
    assert numbers[:2] == [in_rows(0), in_rows(5)]
    assert all(min(window) >= 12 for window in numbers[2:])
    assert finder.breaks == {"cuts": 1}


def test_after_a_cut_the_next_window_begins_behind_it():
    numbers, finder, _ = windows_of([*pan(5), *pan(5, photo="coffee", start=150)])  # where one has ended
    assert (numbers, finder.breaks) == ([in_rows(0), in_rows(5)], {"cuts": 1})
    numbers, finder, _ = windows_of([*pan(7), *pan(10, photo="coffee", start=150)])
    assert numbers == [in_rows(0), in_rows(7), in_rows(12)]
    assert finder.breaks == {"cuts": 1}


def test_still_stretches_are_left_out_even_if_they_are_noisy():
    rng = np.random.default_rng(0)
    still = [np.clip(view(26) + rng.normal(0, 2, (96, 160, 3)), 0, 255).astype(np.uint8) for _ in range(15)]
    numbers, finder, _ = windows_of([*pan(5), *still, *pan(10, start=27)])
    assert numbers == [in_rows(0), in_rows(20), in_rows(25)]
    assert finder.left_out == {"still": 3}


def test_a_small_thing_that_moves_is_no_stillness():
    pictures = []
    for number in range(5):
        picture = view(20)
        picture[30:70, 40 + 3 * number : 80 + 3 * number] = view(100)[30:70, 40:80]
        pictures.append(picture)
    numbers, _, (window,) = windows_of(pictures)
    assert numbers == [in_rows(0)]
    assert window.motion_px == pytest.approx(12, rel=0.3)


@pytest.mark.parametrize("gains", [(1, 1, 1.3, 1, 1), (1, 0.95, 0.9, 0.85, 0.8)], ids=["flash", "fade"])
def test_windows_whose_light_changes_are_left_out(gains):
    changing = [np.clip(p * gain, 0, 255).astype(np.uint8) for p, gain in zip(pan(5), gains, strict=True)]
    numbers, finder, _ = windows_of([*changing, *pan(5, start=25)])
    assert numbers == [in_rows(5)]
    assert finder.left_out == {"light changes": 1}


def as_bright_as(other, picture):
    return np.clip(np.rint(picture + (other.mean() - picture.mean())), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("second", "frames", "reason"),
    [
        (pan(11, photo="coffee", start=150), 11, "light changes"),
        ([as_bright_as(view(20), pan(1, photo="coffee", start=150)[0])] * 11, 8, "scene changes"),
    ],
)
def test_a_dissolve_from_one_scene_to_another_is_left_out(second, frames, reason):
    first = pan(11)
    shares = np.arange(11).clip(0, frames - 1) / (frames - 1)
    mixed = [
        np.rint(a * (1 - share) + b * share).astype(np.uint8)
        for a, b, share in zip(first, second, shares, strict=True)
    ]
    numbers, finder, _ = windows_of(mixed, counts=(11,))
    assert numbers == []
    assert finder.left_out == {reason: 1}


@pytest.mark.parametrize("step_px", [9.0, 12.0])
def test_a_motion_too_large_to_follow_is_no_scene_change(step_px):
    numbers, finder, _ = windows_of(pan(22, step_px), counts=(11,))
    assert numbers == []
    assert finder.left_out == {"too much motion": 2}
    assert finder.breaks == {}


def test_windows_with_a_repeated_frame_are_left_out():
    pictures = pan(15)
    pictures[7] = pictures[6]
    numbers, finder, _ = windows_of(pictures)
    assert numbers == [in_rows(0), in_rows(10)]
    assert finder.left_out == {"repeated frames": 1}


def test_a_rate_that_was_raised_by_repeating_gives_no_pairs():
    numbers, finder, _ = windows_of([picture for picture in pan(8, 4.0) for _ in range(4)], counts=(9,))
    assert numbers == []
    assert finder.left_out == {"repeated frames": 3}


def test_nothing_is_averaged_across_a_gap_in_time():
    times = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    numbers, finder, _ = windows_of(pan(11), times=times)
    assert numbers == [in_rows(0), in_rows(6)]
    assert finder.breaks == {"gaps in time": 1}


def test_a_time_that_wavers_is_no_gap():
    times = [0, 1.2, 1.9, 3.1, 4]
    assert windows_of(pan(5), times=times)[0] == [in_rows(0)]


def test_motion_and_steps_that_are_too_large_are_left_out_if_asked_for():
    pictures = [*pan(5, 1.0), *pan(5, 4.0, start=25)]
    numbers, finder, _ = windows_of(pictures)
    assert numbers == [in_rows(0), in_rows(5)]
    assert finder.large_steps == 1
    for choice, reason in (
        (Choice(max_motion_px=8), "too much motion"),
        (Choice(max_step_px=3), "large steps"),
    ):
        numbers, finder, _ = windows_of(pictures, choice)
        assert numbers == [in_rows(0)]
        assert finder.left_out == {reason: 1}
        assert finder.large_steps == 0


def test_of_many_windows_a_few_are_taken_spread_over_the_time():
    pictures = [*pan(40), *[view(59)] * 10, *pan(50, start=59)]
    numbers, finder, _ = windows_of(pictures, Choice(max_pairs=4), span=(0.0, 100.0))
    assert finder.found == 4
    # The still stretch is in the second quarter, which has others.
    assert [first // 25 for first, *_ in numbers] == [0, 1, 2, 3]


# Clips and splits


def film(name: str, seconds: float = 10.0) -> Video:
    return Video(Path(name), 160, 96, "h264", Fraction(1, 240), (), round(seconds * 240), 1 / 240)


DIVIDE = {"test_share": 0.2, "gap_s": 1.0}


@pytest.mark.parametrize(
    ("clips", "share", "tested"), [(10, 0.2, 2), (3, 0.1, 1), (2, 0.9, 1), (4, 0, 0), (4, 1, 4), (1, 0, 0)]
)
def test_clips_are_split_whole(clips, share, tested):
    videos = [film(f"in/{number}.mp4") for number in range(clips)]
    made = divided(videos, Path("in"), test_share=share, gap_s=1.0)
    assert [clip.split for clip in made].count("test") == tested
    assert [(clip.name, clip.start_s, clip.end_s) for clip in made] == [
        (str(number), 0.0, 10.0) for number in range(clips)
    ]


def test_the_draw_follows_from_the_seed_and_the_names():
    videos = [film(f"in/{number}.mp4") for number in range(9)]

    def drawn(order, seed):
        made = divided(order, Path("in"), **DIVIDE, seed=seed)
        return {clip.name for clip in made if clip.split == "test"}

    assert drawn(videos, 3) == drawn(videos[::-1], 3)
    assert len({frozenset(drawn(videos, seed)) for seed in range(9)}) > 1


def test_a_single_clip_is_divided_in_time_with_a_gap():
    first, second = divided([film("a.MP4", 11.0)], Path("a.MP4"), **DIVIDE, start_s=0.5, end_s=10.5)
    assert (first.name, first.split, first.start_s, first.end_s) == ("a_part1", "train", 0.5, 7.7)
    assert (second.name, second.split, second.end_s) == ("a_part2", "test", 10.5)
    assert second.start_s == pytest.approx(8.7)


def test_a_single_clip_that_is_too_short_is_not_divided():
    with pytest.raises(ConfigurationError, match=r"is 0\.90 s long, too short .* gap_s=1"):
        divided([film("a.MP4", 0.9)], Path("a.MP4"), **DIVIDE)


def test_folders_that_are_called_train_and_test_are_the_splits():
    videos = [film("in/train/a.mp4"), film("in/train/more/b.mp4"), film("in/test/a.mp4")]
    made = divided(videos, Path("in"), **DIVIDE)
    assert [(clip.split, clip.name) for clip in made] == [
        ("train", "train-a"),
        ("train", "b"),
        ("test", "test-a"),
    ]
    with pytest.raises(ConfigurationError, match=r"in/c\.mp4 in neither"):
        divided([*videos, film("in/c.mp4")], Path("in"), **DIVIDE)


def test_names_that_several_files_share_are_told_apart():
    videos = [film(f"in/{name}") for name in ("a.mp4", "A.mov", "x/clip.1.mp4", "y/clip.1.mp4", "y/b.mp4")]
    names = [clip.name for clip in divided(videos, Path("in"), **DIVIDE)]
    assert names == ["a.mp4", "A.mov", "x-clip.1", "y-clip.1", "b"]


def test_videos_are_found_by_their_ending_wherever_they_lie(tmp_path):
    for name in ("b.MP4", "x/a.mov", "x/note.txt", "._b.MP4", ".cache/c.mp4", "out/train/d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    found = files_in(tmp_path, tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b.MP4", "x/a.mov"]
    with pytest.raises(DataError, match="holds no videos"):
        files_in(tmp_path / "out" / "train", tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        files_in(tmp_path / "no", tmp_path / "out")
