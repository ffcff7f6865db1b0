"""What `import onestage` offers, for type checkers and editors; at run time it is imported when first used."""

from onestage.analysis.comparing import Comparison as Comparison
from onestage.analysis.comparing import compare as compare
from onestage.analysis.judging import judge_detections as judge_detections
from onestage.api import Detector as Detector
from onestage.data.opening import open_dataset as open_dataset
from onestage.deploy.predict import Prediction as Prediction
from onestage.evaluation import Evaluation as Evaluation
from onestage.evaluation import evaluate as evaluate
from onestage.experiments.run import Run as Run
from onestage.runs import replay as replay
from onestage.runs import resume as resume

__version__: str
