"""The class names of data sets that published weights were trained on, in the order of their files."""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


# As COCO itself spells them; darknet's coco.names has motorbike, aeroplane, sofa, pottedplant, diningtable, tvmonitor.
COCO = _split(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
    "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
VOC = _split(
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,pottedplant,"
    "sheep,sofa,train,tvmonitor"
)
# What so many classes are taken for where a file says no more.
USUAL: dict[int, tuple[str, ...]] = {len(COCO): COCO, len(VOC): VOC}
