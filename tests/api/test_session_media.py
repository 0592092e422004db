"""Pictures and videos of a conversation: opened once, known by content, and made again only where they must be."""

import io
from itertools import islice

import numpy as np
import pytest
from support.media import picture, video_path
from support.sessions import OPTIONS, from_scratch, ids, media_item

import mlx_smolvlm.media.fetch
from mlx_smolvlm import Session, stream_generate
from mlx_smolvlm.processor.prompt_media import Clip


def test_media_may_come_at_any_turn(pair, session, work):
    """A video changes the template that some checkpoints use, so that all is read again, pixels included."""
    image, clip = media_item("image", picture("landscape")), media_item("video", str(video_path("short")))
    list(session.ask("Hello"))
    expected = from_scratch(pair, session, "A picture", image)
    assert ids(session.ask("A picture", images=[picture("landscape")])) == expected
    expected = from_scratch(pair, session, "A video", image, clip)
    assert ids(session.ask("A video", videos=[str(video_path("short"))])) == expected
    expected = from_scratch(pair, session, "Both?", image, clip)
    assert ids(session.ask("Both?")) == expected


def test_markers_place_the_media(pair, session):
    sources = [picture("landscape"), picture("second")]
    expected = ids(stream_generate(*pair, "Is <image> like <image>?", images=sources, max_tokens=6))
    assert ids(session.ask("Is <image> like <image>?", images=sources)) == expected
    with pytest.raises(ValueError, match="2 <image> markers"):
        session.ask("Is <image> like <image>?", images=sources[:1])


def test_an_edit_may_bring_other_pictures(pair, session):
    list(session.ask("What is this?", images=[picture("landscape")]))
    other = media_item("image", picture("second"))
    expected = from_scratch(pair, session, "What is this?", other, turns=[])
    assert ids(session.edit("What is this?", images=[picture("second")])) == expected


def test_a_new_system_prompt_needs_pixels_but_no_encoder(pair, session, work):
    """What comes before the picture changes, so it is read again; its features are still there."""
    image = media_item("image", picture("landscape"))
    session.system = "Be brief."
    list(session.ask("What is this?", images=[picture("landscape")]))
    session.system = "Be exact."
    expected = from_scratch(pair, session, "And then?", image)
    work.clear()
    assert ids(session.ask("And then?")) == expected
    assert work["cut"] == 1
    assert "encoded" not in work


def test_media_are_recognised_by_content(session, work, tmp_path):
    path = tmp_path / "copy.png"
    picture("landscape").save(path)
    buffer = io.BytesIO()
    picture("landscape").save(buffer, "png")
    list(session.ask("What is this?", images=[path]))
    work.clear()
    list(session.ask("And this?", images=[buffer.getvalue()]))  # in another place, so its tokens are read
    assert "encoded" not in work
    session.undo(), session.undo()
    work.clear()
    list(session.ask("What is that?", images=[np.asarray(picture("landscape"))]))
    assert work["tokens"] < 30


def test_features_stay_within_their_bytes(pair):
    session = Session(*pair, options=OPTIONS, max_feature_bytes=3000)
    list(session.ask("What is this?", images=[picture("landscape")]))
    assert 0 < session.feature_cache.size_bytes <= 3000


def test_pictures_from_files_leave_their_pixels_in_the_file(session, tmp_path):
    path = tmp_path / "a.png"
    picture("landscape").save(path)
    list(session.ask("What is this?", images=[path, picture("second")]))
    from_file, from_memory = (item["image"] for item in session.turns[0].content[:2])
    assert from_file.source == str(path)
    assert from_memory.source.tobytes() == picture("second").tobytes()


@pytest.mark.parametrize("change", ["other picture", "gone"])
def test_a_file_that_has_changed_is_noticed_when_its_pixels_are_needed(session, tmp_path, change):
    path = tmp_path / "a.png"
    picture("landscape").save(path)
    list(session.ask("What is this?", images=[path]))
    path.unlink() if change == "gone" else picture("landscape").transpose(0).save(path)
    list(session.ask("And then?"))  # nothing of it is needed
    session.system = "Be brief."
    with pytest.raises(FileNotFoundError if change == "gone" else ValueError, match=r"no such file|has changed"):
        list(session.ask("And now?"))
    assert len(session.turns) == 2


def test_what_came_from_an_address_is_downloaded_once(pair, session, monkeypatch):
    """But for a video whose pixels are needed again: its file is gone."""
    buffer, fetched = io.BytesIO(), []
    picture("second").save(buffer, "png")
    image, clip = "http://example.com/a.png", "http://example.com/clip.mp4"

    def fetch(url, *_, **__):
        fetched.append(url)
        return buffer.getvalue()

    def stream(url, *_, **__):
        fetched.append(url)
        yield video_path("short").read_bytes()

    monkeypatch.setattr(mlx_smolvlm.media.fetch, "fetch", fetch)
    monkeypatch.setattr(mlx_smolvlm.media.fetch, "stream", stream)
    list(session.ask("What is this?", images=[image], videos=[clip]))
    list(session.ask("And then?"))
    assert fetched == [image, clip]
    session.system = "Be brief."
    media = media_item("image", picture("second")), media_item("video", str(video_path("short")))
    assert ids(session.ask("And now?")) == from_scratch(pair, session, "And now?", *media, turns=session.turns[:2])
    assert fetched == [image, clip, clip]


def test_a_video_that_breaks_off_stays_as_long_as_it_was(session, work, monkeypatch):
    def two_frames(clip, check_cancelled, original=Clip.tiles):
        yield from islice(original(clip, check_cancelled), 2)

    monkeypatch.setattr(Clip, "tiles", two_frames)
    with pytest.warns(UserWarning, match="breaks off: 2 of"):
        steps = list(session.ask("What happens?", videos=[str(video_path("long"))]))
    assert steps[-1].media[0].num_tiles == 2
    work.clear()
    steps = list(session.ask("And then?"))
    assert steps[-1].media[0].num_tiles == 2
    assert work.keys() == {"tokens"}
    session.system = "Be brief."
    steps = list(session.ask("And now?"))  # made again, without a warning
    assert steps[-1].media[0].num_tiles == 2
