"""Runs the VOC development kits of 2007 and 2012 under Octave on random sets; see README.md."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "evaluation"))
from voc_sets import CLASSES, KINDS, SEEDS, write_set  # noqa: E402

# Octave's textread takes the next line's word where a column is missing; MATLAB's leaves it empty.
TEXTREAD = """function varargout = textread(file, form)
  lines = strsplit(strtrim(fileread(file)), sprintf('\\n'));
  fields = cellfun(@(line) strsplit(strtrim(line), ' '), lines, 'UniformOutput', false);
  varargout{1} = cellfun(@(field) field{1}, fields, 'UniformOutput', false)';
  for i = 2:nargout
    varargout{i} = cellfun(@(field) str2double([field{min(i, end)} repmat('x', i > numel(field))]), fields)';
  end
end
"""
ONE = """
  o.annocachepath = [base '/{set}_{year}_%s.mat'];
  o.imgsetpath = [base '/{set}/ImageSets/Main/%s.txt'];
  o.annopath = [base '/{set}/Annotations/%s.xml'];
  o.detrespath = [base '/{set}/results/%s_det_test_%s.txt'];
  for c = classes
    tic; ap = NaN;
    try
      [rec, prec, ap] = VOCevaldet(o, 'comp4', c{{1}}, false);
    catch e
      disp(['{set} ' c{{1}} ': ' e.message]);
    end
    fprintf(f, '%.17g\\n', ap);
  end
"""


def main(kits: list[str]) -> None:
    names = [(kind, seed) for kind in KINDS for seed in SEEDS]
    scores: dict[str, dict[str, list[float | None]]] = {}
    with tempfile.TemporaryDirectory() as base:
        for i, (kind, seed) in enumerate(names):
            write_set(Path(base) / str(i), KINDS[kind], seed)
        (Path(base) / "textread.m").write_text(TEXTREAD)
        for year, kit in zip(("2007", "2012"), kits, strict=True):
            listed = ", ".join(f"'{name}'" for name in CLASSES)
            script = f"warning('off'); addpath('{kit}'); addpath('{base}'); base = '{base}'; classes = {{{listed}}};\n"
            script += f"o.testset = 'test'; o.minoverlap = 0.5; f = fopen('{base}/out', 'w');\n"
            script += "".join(ONE.format(set=i, year=year) for i in range(len(names))) + "fclose(f);\n"
            path = Path(base) / "run.m"
            path.write_text(script)
            subprocess.run(["octave-cli", "-q", str(path)], check=True, stdout=sys.stderr)
            values = [float(line) for line in (Path(base) / "out").read_text().split()]
            for i, (kind, seed) in enumerate(names):
                own = values[i * len(CLASSES) : (i + 1) * len(CLASSES)]
                scores.setdefault(f"{kind}/{seed}", {})[year] = [None if math.isnan(v) else v for v in own]
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in scores.items())
    (HERE / "devkit.json").write_text(f"{{\n{rows}\n}}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
