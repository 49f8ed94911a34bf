"""Suites that a component gets for three lines: subclass one and say how to make the component."""

import numpy as np


class DataContract:
    """What every image data set promises. A subclass gives `load(**knobs)`: small, no duplicate images."""

    kind = "image"

    def load(self, **knobs):
        raise NotImplementedError

    def test_splits_are_float32_images_between_0_and_1(self):
        data = self.load()
        assert data.kind == self.kind
        for split in (data.train, data.validation, data.test):
            assert len(split) == len(split.x) > 0
            assert split.x.dtype == np.float32
            assert split.x.shape[1:] == data.shape
            assert len(data.shape) == 3
            assert np.isfinite(split.x).all()
            assert 0 <= split.x.min() < split.x.max() <= 1

    def test_labels_count_into_their_names(self):
        data = self.load()
        splits = (data.train, data.validation, data.test)
        if not data.label_names:
            assert all(split.y is None for split in splits)
            return
        for split in splits:
            assert split.y.dtype == np.int64
            assert split.y.shape == (len(split),)
        assert set(np.concatenate([split.y for split in splits])) == set(range(len(data.label_names)))

    def test_no_image_is_in_two_splits(self):
        data = self.load()
        rows = [x.tobytes() for split in (data.train, data.validation, data.test) for x in split.x]
        assert len(set(rows)) == len(rows)

    def test_same_seed_same_data(self):
        one, two = self.load(), self.load()
        assert one.fingerprint == two.fingerprint
        assert len(one.fingerprint) == 64
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(one, part).x, getattr(two, part).x)

    def test_another_seed_cuts_other_validation_rows_of_the_same_data(self):
        one, two = self.load(seed=1), self.load(seed=2)
        assert one.fingerprint == two.fingerprint
        assert len(one.validation) == len(two.validation)
        assert not np.array_equal(one.validation.x, two.validation.x)

    def test_limit_bounds_every_split_after_the_cut(self):
        whole, few = self.load(), self.load(limit=3)
        assert few.fingerprint == whole.fingerprint
        for part in ("train", "validation", "test"):
            split, rows = getattr(few, part), {x.tobytes() for x in getattr(whole, part).x}
            assert len(split) == min(3, len(rows))
            assert {x.tobytes() for x in split.x} <= rows

    def test_says_where_it_comes_from(self):
        data = self.load()
        assert data.name
        assert data.source
        assert data.licence
