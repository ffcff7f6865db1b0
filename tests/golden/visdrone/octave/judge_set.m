% octave-cli judge_set.m TOOLKIT SET: the toolkit's seven numbers in percent, then AP, AP50 and AR500 of each class.
arguments = argv();
addpath(fullfile(arguments{1}, 'utils'));
addpath(fileparts(mfilename('fullpath')));  % after the toolkit, so that it comes first
warning('off', 'all');
root = arguments{2};
names = findImageList(fullfile(root, 'annotations'));
n = length(names);
evalc('[gt, det] = saveAnnoRes(fullfile(root, "annotations"), fullfile(root, "detections"), fullfile(root, "images"), n, names);');
evalc('[a, b, c, d, e, f, g] = calcAccuracy(n, gt, det);');
printf('official %.17g %.17g %.17g %.17g %.17g %.17g %.17g\n', a, b, c, d, e, f, g);
for k = 1:10
    % with the truth of one class only, the class mean is that class's own number
    one = cellfun(@(rows) rows(rows(:, 6) == k, :), gt, 'UniformOutput', false);
    if all(cellfun(@isempty, one))
        continue
    end
    evalc('[a, b, c, d, e, f, g] = calcAccuracy(n, one, det);');
    printf('%d %.17g %.17g %.17g\n', k, a, b, g);
end
